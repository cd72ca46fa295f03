// docs/reference/container-metrics.md says what ListMetricDescriptors answers. UPDATE_GENERATED=1
// writes it.

import assert from 'node:assert/strict';
import { readFile, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { MetricType } from '@cribus/contracts/gen/cri/v1/api.ts';
import { describe, it } from 'mocha';
import { COMMON_LABELS, FAMILIES } from './descriptors.ts';

const source = dirname(fileURLToPath(import.meta.url));
const page = join(source, '../../../../../docs/reference/container-metrics.md');

const INTRODUCTION = `# Metrics of containers

<!-- Made from services/cri-gateway/src/stats/metrics, by UPDATE_GENERATED=1 npm run unit; the same
test fails when this page and the families differ. -->

What \`ListMetricDescriptors\` and \`ListPodSandboxMetrics\` answer. With the feature gate
\`PodAndContainerStatsFromCRI\` the kubelet serves them at \`/metrics/cadvisor\`; \`crictl metricsp\` shows
them too. Names and labels are cAdvisor's, so that dashboards made for it work.

- Every metric has the labels ${COMMON_LABELS.map((label) => `\`${label}\``).join(', ')}. \`id\` is the
  cgroup, \`name\` the container's id. Those of a pod as a whole (its cgroup and its network) have no
  \`container\`, \`image\` and \`name\`.
- CRI's values are whole numbers, so that seconds are cut to whole ones.
- A metric is absent where its kernel, its block device or its sandbox does not count it: pressure needs
  cgroup v2 or a hybrid host, scheduler periods a quota, some counters of I/O an I/O scheduler that keeps
  them, and a container inside a Sentry has what \`runsc events --stats\` tells: processor time, memory and
  processes.
- Those marked *extra* are not in the kubelet's own choice of cAdvisor's metrics; a node with more than
  200 containers leaves them out, as an answer has at most 16 MiB.
- Sampled every five seconds, and only while somebody asked for metrics within the last minute.
- cAdvisor's metrics of perf events, of Intel RDT, of referenced memory and of sockets by state are not
  there: each is off by default in cAdvisor too, for what it costs.

| Metric | Type | Its own labels | Meaning |
|---|---|---|---|
`;

describe('the reference of container metrics', () => {
  it('is what the families say', async () => {
    const rows = FAMILIES.toSorted((a, b) => (a.name < b.name ? -1 : 1)).map(
      ({ name, type, labels, help, extra }) => {
        const kind = type === MetricType.COUNTER ? 'counter' : 'gauge';
        const own = labels.map((label) => `\`${label}\``).join(', ');
        return `| \`${name}\` | ${kind} | ${own} | ${help}${extra ? ' *Extra.*' : ''} |\n`;
      },
    );
    const reference = `${INTRODUCTION}${rows.join('')}`;
    if (process.env['UPDATE_GENERATED'] !== undefined) await writeFile(page, reference);
    assert.equal(
      reference,
      await readFile(page, 'utf8'),
      'UPDATE_GENERATED=1 npm run unit writes docs/reference/container-metrics.md',
    );
  });
});
