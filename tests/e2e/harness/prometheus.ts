// A real Prometheus (Debian's) on a loopback port, with the scrape configuration of the repository, for
// as long as a test wants it.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { freePort } from '@cribus/cli/tour/registry.ts';
import { eventually, PROJECT_ROOT } from './stack.ts';

export interface Series {
  readonly metric: Readonly<Record<string, string>>;
  /** Seconds since 1970, and the value as Prometheus spells it. */
  readonly values: readonly (readonly [number, string])[];
}

export interface Prometheus {
  /** What a panel of Grafana asks: a query over the last `seconds`, a value each second. */
  range(query: string, seconds: number): Promise<readonly Series[]>;
  /** The latest value of each series of a query. */
  instant(query: string): Promise<readonly { metric: Record<string, string>; value: number }[]>;
  /** As Grafana's label_values(match, label). */
  labelValues(label: string, match: string): Promise<readonly string[]>;
  stop(): Promise<void>;
}

const TARGETS = '/var/lib/cribus/generated/prometheus-targets.json';
const SCRAPE_SECONDS = 1;

/** The repository's configuration, for another file of targets and scraping each second. */
async function configuration(targets: string): Promise<string> {
  let text = await readFile(join(PROJECT_ROOT, 'deploy', 'prometheus', 'prometheus.yml'), 'utf8');
  for (const [from, to] of [
    [`- ${TARGETS}`, `- ${JSON.stringify(targets)}`],
    ['scrape_interval: 15s', `scrape_interval: ${SCRAPE_SECONDS}s`],
    ['scrape_timeout: 10s', `scrape_timeout: ${SCRAPE_SECONDS}s`],
  ] as const) {
    assert.ok(text.includes(from), `prometheus.yml has no "${from}"`);
    text = text.replace(from, to);
  }
  return text;
}

/** Starts it on a file of targets as `cribus up` writes it, and waits until it answers. */
export async function startPrometheus(targets: string): Promise<Prometheus> {
  const directory = await mkdtemp(join(tmpdir(), 'cribus-prometheus-'));
  const config = join(directory, 'prometheus.yml');
  await writeFile(config, await configuration(targets));
  const address = `127.0.0.1:${await freePort()}`;
  const child = spawn(
    'prometheus',
    [
      `--config.file=${config}`,
      `--storage.tsdb.path=${join(directory, 'data')}`,
      `--web.listen-address=${address}`,
      '--log.level=warn',
    ],
    { stdio: ['ignore', 'ignore', 'pipe'], detached: true },
  );
  let said = '';
  child.stderr.on('data', (chunk) => {
    said += chunk;
  });
  const exited = new Promise((resolve) => child.on('close', resolve));
  const stop = async () => {
    child.kill('SIGKILL');
    await exited;
    await rm(directory, { recursive: true, force: true });
  };
  const api = async (path: string, parameters: Readonly<Record<string, string>>) => {
    const answer = await fetch(
      `http://${address}/api/v1/${path}?${new URLSearchParams(parameters)}`,
    );
    const body = (await answer.json()) as { status: string; data: unknown; error?: string };
    assert.equal(body.status, 'success', `${parameters['query'] ?? path}: ${body.error}`);
    return body.data;
  };
  try {
    await eventually('Prometheus is ready', async () => {
      assert.equal(child.exitCode, null, said);
      return (await fetch(`http://${address}/-/ready`)).ok;
    });
  } catch (error) {
    await stop();
    throw error;
  }
  return {
    async range(query, seconds) {
      const end = Date.now() / 1_000;
      const window = { start: String(end - seconds), end: String(end), step: '1' };
      const data = await api('query_range', { query, ...window });
      return (data as { result: Series[] }).result;
    },
    async instant(query) {
      const data = await api('query', { query });
      const { result } = data as { result: { metric: Record<string, string>; value: string[] }[] };
      return result.map(({ metric, value }) => ({ metric, value: Number(value[1]) }));
    },
    async labelValues(label, match) {
      return (await api(`label/${label}/values`, { 'match[]': match })) as string[];
    },
    stop,
  };
}
