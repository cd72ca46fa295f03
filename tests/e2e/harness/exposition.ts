// Prometheus' text format, as far as services write it, and the reference page that is made of it.

export interface MetricFamily {
  readonly name: string;
  readonly type: string;
  readonly help: string;
  /** Without `service`, which every one has, and without a histogram's `le`. */
  readonly labels: readonly string[];
}

/** The families of one scrape; labels are those that a sample has. */
export function parseExposition(text: string): MetricFamily[] {
  const families = new Map<string, { help: string; type: string; labels: Set<string> }>();
  const family = (name: string) => {
    const known = families.get(name) ?? { help: '', type: '', labels: new Set<string>() };
    families.set(name, known);
    return known;
  };
  for (const line of text.split('\n')) {
    const [, word, name = '', rest = ''] = /^# (HELP|TYPE) (\S+) (.*)$/.exec(line) ?? [];
    if (word === 'HELP') family(name).help = rest;
    else if (word === 'TYPE') family(name).type = rest;
    else if (line !== '') addLabels(line);
  }
  function addLabels(line: string): void {
    const [, sample = '', inner = ''] = /^(\w+)(?:\{(.*)\})? \S+$/.exec(line) ?? [];
    const name = families.has(sample) ? sample : sample.replace(/_(bucket|sum|count)$/, '');
    for (const [, label = ''] of inner.matchAll(/(\w+)="(?:[^"\\]|\\.)*"/g)) {
      if (label !== 'service' && label !== 'le') family(name).labels.add(label);
    }
  }
  return [...families].map(([name, { help, type, labels }]) => ({
    name,
    type,
    help,
    labels: [...labels].sort(),
  }));
}

/** docs/reference/metrics.md from what each service serves. */
export function metricsReference(served: ReadonlyMap<string, readonly MetricFamily[]>): string {
  const rows = new Map<string, { family: MetricFamily; labels: Set<string>; services: string[] }>();
  for (const [service, families] of served) {
    for (const family of families) {
      const row = rows.get(family.name) ?? { family, labels: new Set(), services: [] };
      rows.set(family.name, row);
      row.services.push(service);
      for (const label of family.labels) row.labels.add(label);
    }
  }
  const sorted = [...rows.values()].sort((a, b) => (a.family.name < b.family.name ? -1 : 1));
  const mine = sorted.filter(({ family }) => family.name.startsWith('cribus_'));
  const others = sorted.filter((row) => !mine.includes(row));
  const where = (services: readonly string[]) =>
    services.length === served.size ? 'every service' : services.join(', ');
  const by = (labels: ReadonlySet<string>) => [...labels].sort().map((label) => `\`${label}\``);
  return [
    ...INTRODUCTION,
    '## Of cribus',
    '',
    '| Metric | Type | Labels | Of | Meaning |',
    '|---|---|---|---|---|',
    ...mine.map(({ family: { name, type, help }, labels, services }) =>
      line([`\`${name}\``, type, by(labels).join(', '), where(services), help]),
    ),
    '',
    '## Of the process',
    '',
    'Each service has these of its own process, from prom-client.',
    '',
    '| Metric | Type | Meaning |',
    '|---|---|---|',
    // Their labels depend on what the process happens to do at the moment of the scrape.
    ...others.map(({ family: { name, type, help } }) => line([`\`${name}\``, type, help])),
    '',
  ].join('\n');
}

function line(cells: readonly string[]): string {
  return `| ${cells.map((cell) => cell.replaceAll('|', '\\|')).join(' | ')} |`;
}

const INTRODUCTION = [
  '# Metrics',
  '',
  '<!-- Made from what a running stack serves, by UPDATE_GENERATED=1 npm run e2e; the same test fails',
  'when this page and the services differ. -->',
  '',
  "Each service serves `/metrics` in Prometheus' text format, with `/healthz` and `/readyz`, on",
  '`metrics.address` and its port of `[metrics.ports]`; `cribus up` chooses free ports where none are',
  'configured and prints them. `deploy/prometheus/prometheus.yml` scrapes them and',
  '`deploy/grafana/cribus.json` is the dashboard to import.',
  '',
  'Every metric also has the label `service`; `deploy/prometheus` adds `node`. Durations are in',
  'seconds. A name that several services have counts what each of them sees: `cribus_sandboxes` of',
  'the gateway is what the kubelet is told, that of the sandbox manager is what is on disk.',
  '',
];
