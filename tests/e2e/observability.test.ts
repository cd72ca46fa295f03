// What a node tells of itself: metrics to a real Prometheus and from there to each panel of the
// dashboard, health, log lines, and its owners in NATS' service discovery.

import assert from 'node:assert/strict';
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { GRPC_CODE } from '@cribus/contracts/failure.ts';
import {
  RemovePodSandboxRequest,
  StopPodSandboxRequest,
} from '@cribus/contracts/gen/cri/v1/api.ts';
import { after, before, describe, it } from 'mocha';
import { hasCode } from './harness/cri.ts';
import { discoverOwners } from './harness/discovery.ts';
import { type MetricFamily, metricsReference, parseExposition } from './harness/exposition.ts';
import { startTestRegistry, type TestRegistry } from './harness/images.ts';
import { assertNothingLeaked, snapshotHost } from './harness/leaks.ts';
import { containerStatus, exec, pull, type RunningPod, runPod } from './harness/pods.ts';
import { type Prometheus, startPrometheus } from './harness/prometheus.ts';
import { eventually, PROJECT_ROOT, type Stack, startStack } from './harness/stack.ts';

const SERVICES = [
  'cri-gateway',
  'image-service',
  'runtime-gvisor',
  'runtime-runc',
  'sandbox-manager',
] as const;
const HANDLERS = ['runc', 'gvisor'] as const;
/** Long enough for every round of work to be within it. */
const WINDOW_SECONDS = 90;

let host = snapshotHost();
let stack: Stack;
let registry: TestRegistry;
let prometheus: Prometheus;
/** One of each handler, running. */
let pods: ReadonlyMap<string, RunningPod>;

function targetsFile(): string {
  return join(stack.root, 'state', 'generated', 'prometheus-targets.json');
}

/** Everything that a panel shows: a pull, pods of two handlers, execs, and what fails. */
async function work(): Promise<Map<string, RunningPod>> {
  const { cri } = stack;
  await pull(cri, registry.busybox);
  const running = new Map<string, RunningPod>();
  for (const handler of HANDLERS) {
    const pod = await runPod(stack, {
      image: registry.busybox,
      script: 'sleep 1000',
      handler,
      pod: { name: `watched-${handler}` },
      container: { name: `sleeper-${handler}` },
    });
    running.set(handler, pod);
    const answer = await exec(cri, pod.containerId, ['/bin/echo', 'here']);
    assert.equal(answer.stdout, 'here\n');
  }
  await assert.rejects(pull(cri, `${registry.host}/test/absent:1`), (error) =>
    hasCode(error, GRPC_CODE.NOT_FOUND),
  );
  await assert.rejects(containerStatus(cri, 'f'.repeat(64)), (error) =>
    hasCode(error, GRPC_CODE.NOT_FOUND),
  );
  await assert.rejects(
    runPod(stack, {
      image: registry.busybox,
      script: '',
      pod: { name: `failing-${running.size}-${Date.now()}` },
      container: { command: ['/absent/program'] },
    }),
  );
  return running;
}

async function removeAll(running: ReadonlyMap<string, RunningPod>): Promise<void> {
  for (const { podId: podSandboxId } of running.values()) {
    await stack.cri.call('stopPodSandbox', StopPodSandboxRequest.fromPartial({ podSandboxId }));
    await stack.cri.call('removePodSandbox', RemovePodSandboxRequest.fromPartial({ podSandboxId }));
  }
}

interface Target {
  readonly targets: readonly [string];
  readonly labels: { readonly service: string; readonly node: string };
}

async function targets(): Promise<readonly Target[]> {
  return JSON.parse(await readFile(targetsFile(), 'utf8')) as Target[];
}

async function fetchFrom(service: string, path: string): Promise<Response> {
  const target = (await targets()).find(({ labels }) => labels.service === service);
  assert.ok(target !== undefined, `${service} is no target`);
  return fetch(`http://${target.targets[0]}${path}`);
}

type LogLine = Readonly<Record<string, unknown>>;

async function logOf(service: string): Promise<readonly LogLine[]> {
  const text = await readFile(join(stack.root, 'log', `${service}.log`), 'utf8');
  return text
    .split('\n')
    .filter((line) => line !== '')
    .map((line) => JSON.parse(line) as LogLine);
}

describe('what a node tells of itself', () => {
  before(async () => {
    host = snapshotHost();
    registry = await startTestRegistry();
    stack = await startStack();
    prometheus = await startPrometheus(targetsFile());
    await eventually('Prometheus has scraped each service', async () => {
      const up = await prometheus.instant('up{job="cribus"} == 1');
      return up.length === SERVICES.length;
    });
    // A rate needs two scrapes that differ, so everything happens twice.
    await removeAll(await work());
    await sleep(2_500);
    pods = await work();
    await sleep(2_500);
  });

  after(async () => {
    await prometheus?.stop();
    await stack?.destroy();
    await registry?.stop();
    assertNothingLeaked(host);
  });

  describe('the dashboard on a real Prometheus', () => {
    interface Panel {
      readonly title: string;
      readonly type: string;
      readonly targets?: readonly { readonly expr: string }[];
    }
    interface Dashboard {
      readonly panels: readonly Panel[];
      readonly templating: {
        readonly list: readonly { readonly name: string; readonly definition?: string }[];
      };
    }
    let dashboard: Dashboard;

    before(async () => {
      const file = join(PROJECT_ROOT, 'deploy', 'grafana', 'cribus.json');
      dashboard = JSON.parse(await readFile(file, 'utf8')) as Dashboard;
    });

    /** As Grafana does with "All" chosen. */
    function filledIn(expr: string): string {
      const filled = expr
        .replaceAll('$node', '.*')
        .replaceAll('$service', '.*')
        .replaceAll('$__rate_interval', `${WINDOW_SECONDS}s`);
      assert.ok(!filled.includes('$'), `a variable is left in ${filled}`);
      return filled;
    }

    async function valuesOf(expr: string) {
      const series = await prometheus.range(filledIn(expr), WINDOW_SECONDS);
      return series.flatMap(({ metric, values }) =>
        values
          .map(([, value]) => Number(value))
          .filter((value) => Number.isFinite(value))
          .map((value) => ({ metric, value })),
      );
    }

    it('has data for every query of every panel', async () => {
      let queries = 0;
      const empty: string[] = [];
      for (const panel of dashboard.panels.filter(({ type }) => type !== 'row')) {
        for (const { expr } of panel.targets ?? []) {
          queries += 1;
          if ((await valuesOf(expr)).length === 0) empty.push(`${panel.title}: ${expr}`);
        }
      }
      assert.deepEqual(empty, []);
      assert.ok(queries >= 40, `saw only ${queries} queries`);
    });

    it('shows what happened', async () => {
      const panel = async (title: string, query = 0) => {
        const found = dashboard.panels.find((one) => one.title === title && one.type !== 'row');
        const expr = found?.targets?.[query]?.expr;
        assert.ok(expr !== undefined, `no panel ${title}`);
        return prometheus.instant(filledIn(expr));
      };
      const count = async (title: string, labels: Readonly<Record<string, string>>) =>
        (await panel(title))
          .filter(({ metric }) => Object.entries(labels).every(([key, is]) => metric[key] === is))
          .reduce((sum, { value }) => sum + value, 0);
      for (const handler of HANDLERS) {
        const pod = await count('Pods by RuntimeClass handler', { handler, state: 'ready' });
        assert.ok(pod >= 1, `${pod} pods of ${handler}`);
        const container = { handler, state: 'running' };
        assert.equal(await count('Containers by RuntimeClass handler', container), 1);
      }
      assert.equal(await count('Services up', {}), 1);
      assert.equal(await count('Bugs', {}), 0);
      const errors = await panel('Errors by verb and code');
      assert.ok(
        errors.some(({ metric, value }) => metric['code'] === 'NOT_FOUND' && value > 0),
        JSON.stringify(errors),
      );
      assert.ok((await count('Rate by verb', { verb: 'ExecSync' })) > 0);
      assert.ok((await count('Latency p99 by verb', { verb: 'RunPodSandbox' })) > 0);
      assert.ok((await count('Failed pulls', { outcome: 'not_found' })) > 0);
      assert.ok((await count('Failed operations on the host', { kind: 'engine' })) > 0);
      const memory = await panel('Memory by service');
      assert.deepEqual(memory.map(({ metric }) => metric['service']).sort(), [...SERVICES]);
      for (const { value } of memory) assert.ok(value > 10e6 && value < 500e6, `${value} bytes`);
    });

    it('fills its choices of nodes and services', async () => {
      const [{ labels } = { labels: { node: '' } }] = await targets();
      const choices = async (name: string) => {
        const variable = dashboard.templating.list.find((one) => one.name === name);
        const [, match = '', label = ''] =
          /^label_values\((.*), (\w+)\)$/.exec(filledIn(variable?.definition ?? '')) ?? [];
        return prometheus.labelValues(label, match);
      };
      assert.deepEqual(await choices('service'), [...SERVICES]);
      assert.deepEqual(await choices('node'), [labels.node]);
      assert.notEqual(labels.node, 'node');
    });
  });

  describe('each service', () => {
    it('serves its metrics, of which the reference has every one', async () => {
      const served = new Map<string, readonly MetricFamily[]>();
      for (const service of SERVICES) {
        const answer = await fetchFrom(service, '/metrics');
        assert.equal(answer.status, 200);
        assert.match(answer.headers.get('content-type') ?? '', /^text\/plain; version=0\.0\.4/);
        const text = await answer.text();
        assert.match(
          text,
          new RegExp(`^process_resident_memory_bytes\\{service="${service}"\\} \\d`, 'm'),
        );
        const families = parseExposition(text);
        for (const { name, help, type } of families) {
          assert.ok(help !== '' && type !== '', `${service}: ${name} has no help or type`);
        }
        served.set(service, families);
      }
      const page = join(PROJECT_ROOT, 'docs', 'reference', 'metrics.md');
      const reference = metricsReference(served);
      if (process.env['UPDATE_GENERATED'] !== undefined) await writeFile(page, reference);
      assert.equal(
        reference,
        await readFile(page, 'utf8'),
        'UPDATE_GENERATED=1 npm run e2e writes docs/reference/metrics.md',
      );
    });

    it('says that it lives and that it is ready, with each check by name', async () => {
      for (const service of SERVICES) {
        const health = await fetchFrom(service, '/healthz');
        assert.deepEqual([health.status, await health.json()], [200, { status: 'ok' }]);
        const ready = await fetchFrom(service, '/readyz');
        const body = (await ready.json()) as { status: string; checks: Record<string, boolean> };
        assert.deepEqual([ready.status, body.status], [200, 'ready'], service);
        assert.equal(body.checks['nats'], true);
        assert.deepEqual([...new Set(Object.values(body.checks))], [true]);
      }
    });

    it('is not ready without NATS, and ready again with it', async () => {
      const pid = await stack.pidOf('nats-server');
      process.kill(pid, 'SIGKILL');
      await eventually('a service notices', async () => {
        const answer = await fetchFrom('image-service', '/readyz');
        const { checks } = (await answer.json()) as { checks: Record<string, boolean> };
        return answer.status === 503 && checks['nats'] === false;
      });
      for (const service of SERVICES) {
        await eventually(
          `${service} is ready again`,
          async () => (await fetchFrom(service, '/readyz')).ok,
        );
      }
    });
  });

  describe('the logs', () => {
    it('are lines of JSON with a time, a level, the service and a sentence', async () => {
      for (const service of SERVICES) {
        const lines = await logOf(service);
        assert.ok(lines.length >= 3, `${service} wrote ${lines.length} lines`);
        for (const line of lines) {
          assert.equal(line['service'], service);
          assert.match(String(line['time']), /^\d{4}-\d\d-\d\dT[\d:.]+Z$/);
          assert.match(String(line['level']), /^(debug|info|warn|error)$/);
          assert.notEqual(line['message'] ?? '', '');
        }
      }
    });

    it('let one call be followed through each part by its request id', async () => {
      for (const handler of HANDLERS) {
        const { podId, containerId } = pods.get(handler) as RunningPod;
        const worker = `runtime-${handler}`;
        const pod = `watched-${handler}`;
        const container = `sleeper-${handler}`;
        const ran = await find('cri-gateway', { verb: 'RunPodSandbox', pod });
        const made = await find('sandbox-manager', {
          verb: 'run-pod-sandbox',
          pod,
          sandbox: podId,
        });
        assert.ok(ran.some((line) => line['request_id'] === made[0]?.['request_id']));
        const names = { pod, container };
        const asked = await find('cri-gateway', { verb: 'CreateContainer', ...names });
        const created = await find(worker, {
          ...{ verb: 'create-container', ...names },
          container_id: containerId,
        });
        assert.ok(asked.some((line) => line['request_id'] === created[0]?.['request_id']));
        const leased = await find('image-service', { request_id: created[0]?.['request_id'] });
        assert.equal(leased[0]?.['verb'], 'take-lease');
        const started = await find(worker, { verb: 'start-container', container_id: containerId });
        assert.equal(started[0]?.['container'], container);
        assert.equal(started[0]?.['pod'], pod);
        assert.match(String(started[0]?.['request_id']), /^[0-9a-f-]{36}$/);
      }
    });

    /** At least one line that has all these fields. */
    async function find(service: string, fields: LogLine): Promise<readonly LogLine[]> {
      const found = (await logOf(service)).filter((line) =>
        Object.entries(fields).every(([key, value]) => line[key] === value),
      );
      assert.ok(found.length > 0, `${service} has no line with ${JSON.stringify(fields)}`);
      return found;
    }
  });

  describe('service discovery on NATS', () => {
    const OWNERS = [
      'image-service',
      'runtime.crun',
      'runtime.gvisor',
      'runtime.runc',
      'sandbox-manager',
    ];

    it('lists each owner, of each handler one, with version and verbs', async () => {
      const infos = await discoverOwners(stack.root, 'INFO', OWNERS.length);
      assert.deepEqual(infos.map(({ metadata }) => metadata['owner']).sort(), OWNERS);
      assert.equal(new Set(infos.map(({ id }) => id)).size, OWNERS.length);
      const { version } = JSON.parse(
        await readFile(join(PROJECT_ROOT, 'package.json'), 'utf8'),
      ) as {
        version: string;
      };
      for (const info of infos) {
        const owner = info.metadata['owner'] ?? '';
        assert.equal(info.type, 'io.nats.micro.v1.info_response');
        assert.equal(info.version, version);
        assert.equal(info.metadata['handler'], /^runtime\.(.*)$/.exec(owner)?.[1]);
        const verb = owner.startsWith('runtime.') ? 'start-container' : 'describe';
        const endpoint = info.endpoints.find(({ name }) => name === verb);
        assert.equal(endpoint?.subject, `cribus.node.${owner}.${verb}`);
      }
    });

    it('has statistics of each verb', async () => {
      const stats = await discoverOwners(stack.root, 'STATS', OWNERS.length);
      assert.deepEqual(stats.map(({ metadata }) => metadata['owner']).sort(), OWNERS);
      const of = (owner: string, verb: string) =>
        stats
          .find(({ metadata }) => metadata['owner'] === owner)
          ?.endpoints.find(({ name }) => name === verb);
      for (const handler of HANDLERS) {
        const started = of(`runtime.${handler}`, 'start-container');
        assert.ok((started?.num_requests ?? 0) >= 2, JSON.stringify(started));
        assert.ok((started?.average_processing_time ?? 0) > 100_000, JSON.stringify(started));
      }
      assert.ok((of('image-service', 'pull-image')?.num_errors ?? 0) >= 2);
    });
  });
});
