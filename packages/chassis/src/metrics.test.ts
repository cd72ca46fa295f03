import assert from 'node:assert/strict';
import { Failure } from '@cribus/contracts/failure.ts';
import { IMAGE_SERVICE } from '@cribus/contracts/subjects.ts';
import { systemClock } from '@cribus/host/clock.ts';
import { describe, it } from 'mocha';
import { observeAsks } from './bus/observe-asks.ts';
import type { Bus } from './bus.ts';
import { createMetrics } from './metrics.ts';

/** The samples of a scrape without their help, as `name{labels} value`. */
async function samples(metrics: ReturnType<typeof createMetrics>, name: string): Promise<string[]> {
  const text = await metrics.registry.getSingleMetricAsString(name);
  return text.split('\n').filter((line) => line !== '' && !line.startsWith('#'));
}

describe('metrics', () => {
  it('let every owner of a process collect its own labels of one gauge', async () => {
    const metrics = createMetrics('runtime-runc');
    for (const [handler, count] of [
      ['runc', 3],
      ['crun', 0],
    ] as const) {
      metrics.gauge('cribus_containers', 'Containers.', ['handler'], (gauge) => {
        gauge.set({ handler }, count);
      });
    }
    assert.deepEqual(await samples(metrics, 'cribus_containers'), [
      'cribus_containers{handler="runc",service="runtime-runc"} 3',
      'cribus_containers{handler="crun",service="runtime-runc"} 0',
    ]);
  });

  it('time an operation with its outcome, and declare it before the first', async () => {
    const metrics = createMetrics('sandbox-manager');
    assert.match(await metrics.registry.metrics(), /# TYPE cribus_operation_seconds histogram/);
    await metrics.timed('cni', 'add bridge', async () => 1);
    await assert.rejects(metrics.timed('cni', 'add bridge', () => Promise.reject(new Error('no'))));
    const counts = (await samples(metrics, 'cribus_operation_seconds')).filter((line) =>
      line.startsWith('cribus_operation_seconds_count'),
    );
    assert.deepEqual(counts.map((line) => /outcome="(\w+)".* (\d+)$/.exec(line)?.slice(1)).sort(), [
      ['error', '1'],
      ['ok', '1'],
    ]);
  });

  it('count questions by how they ended for the asker', async () => {
    const metrics = createMetrics('cri-gateway');
    const ends: unknown[] = [
      undefined,
      new Failure('unavailable', 'nobody'),
      new DOMException('late', 'TimeoutError'),
      new DOMException('gone', 'AbortError'),
    ];
    const asked = {
      ask: async () => {
        const end = ends.shift();
        if (end !== undefined) throw end;
        return { result: {}, changed: [] };
      },
    } as unknown as Bus;
    const bus = observeAsks(asked, { metrics, clock: systemClock });
    const ask = () =>
      bus.ask(
        'describe',
        { id: '' },
        { owner: IMAGE_SERVICE, signal: AbortSignal.timeout(1_000), requestId: 'r' },
      );
    await ask();
    for (let times = 0; times < 3; times += 1) await assert.rejects(ask());
    const counted = await samples(metrics, 'cribus_bus_requests_total');
    assert.deepEqual(
      counted.map((line) => /outcome="(\w+)"/.exec(line)?.[1]),
      ['ok', 'unavailable', 'timeout', 'cancelled'],
    );
  });
});
