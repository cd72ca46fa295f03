import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { Service } from '@cribus/chassis/service.ts';
import { Failure } from '@cribus/contracts/failure.ts';
import { ContainerRecord, LeaseRecord } from '@cribus/contracts/gen/node/v1/records.ts';
import { InventoryResponse } from '@cribus/contracts/gen/node/v1/verbs.ts';
import { afterEach, beforeEach, describe, it } from 'mocha';
import { sweepForEver } from './sweep.ts';
import { type ImageStack, openImageStack } from './testing/image-stack.ts';

describe('the sweep of what nothing names', () => {
  let stack: ImageStack;
  let ending: AbortController;

  beforeEach(async () => {
    stack = await openImageStack();
    ending = new AbortController();
  });
  afterEach(() => stack.close());

  const lease = (id: string, handler: string, takenAtNs: bigint) =>
    stack.store.leases.put(
      LeaseRecord.fromPartial({
        format: 1,
        id,
        handler,
        takenAtNs,
        layerNames: [`layer-of-${id}`],
      }),
    );

  /** One round, with a worker that has the container `lives` and another that is down. */
  async function sweepOnce(): Promise<void> {
    const asked: string[] = [];
    const service = {
      ...stack.service,
      stopping: ending.signal,
      bus: {
        publish: () => undefined,
        ask: async (_verb: string, _request: object, { owner }: { owner: string }) => {
          asked.push(owner);
          if (owner === 'runtime.down') throw new Failure('unavailable', 'nobody answers');
          const value = ContainerRecord.fromPartial({ id: 'lives' });
          const objects = [{ id: 'lives', object: { $case: 'container' as const, value } }];
          return { result: InventoryResponse.fromPartial({ objects }) };
        },
      },
      clock: {
        ...stack.service.clock,
        // The pause after the round: by then all of it has been done but the deleting.
        sleep: async () => {
          ending.abort(new Error('one round is enough'));
          throw ending.signal.reason;
        },
      },
    } as unknown as Service;
    await sweepForEver({ service, store: stack.store });
    assert.deepEqual(asked.sort(), ['runtime.down', 'runtime.runc']);
  }

  const eventually = async (what: string, check: () => boolean) => {
    for (let turn = 0; turn < 200 && !check(); turn += 1) await stack.service.clock.sleep(10);
    assert.ok(check(), what);
  };

  it('ends leases whose container is gone, deletes their layers and interrupted ingests, and says what it freed', async () => {
    const { paths } = stack.store;
    await lease('lives', 'runc', 1n);
    await lease('gone', 'runc', 1n);
    await lease('young', 'runc', stack.service.clock.nowNs());
    await lease('unknown', 'down', 1n);
    for (const id of ['lives', 'gone', 'young', 'unknown']) {
      await mkdir(join(paths.layers, `layer-of-${id}`), { recursive: true });
      await writeFile(join(paths.layers, `layer-of-${id}`, 'data'), Buffer.alloc(100_000, 'x'));
    }
    await mkdir(join(paths.ingest, 'half'), { recursive: true });
    await writeFile(join(paths.ingest, 'half', 'data'), Buffer.alloc(50_000, 'x'));
    await writeFile(paths.blobOf(`sha256:${'0'.repeat(64)}`), Buffer.alloc(3_000, 'x'));

    await sweepOnce();
    await eventually('the ingest is deleted', () => !existsSync(join(paths.ingest, 'half')));
    const kept = stack.store.leases.all().map(({ id }) => id);
    assert.deepEqual(kept.sort(), ['lives', 'unknown', 'young']);
    const there = ['lives', 'gone', 'young', 'unknown'].filter((id) =>
      existsSync(join(paths.layers, `layer-of-${id}`)),
    );
    assert.deepEqual(there, ['lives', 'young', 'unknown']);
    assert.ok(!existsSync(paths.blobOf(`sha256:${'0'.repeat(64)}`)));

    await eventually('it is told', () => stack.logged.some((line) => line.includes('Freed what')));
    const told = /(\d+) bytes since the start/.exec(stack.store.collected.summary());
    // Blocks on the disk, so no less than the content.
    assert.ok(Number(told?.[1]) >= 153_000, stack.store.collected.summary());
    assert.match(stack.store.collected.summary(), /^1 layers, 1 ingests, 1 blobs, 1 leases: /);
    const metrics = await stack.service.metrics.registry.metrics();
    assert.match(metrics, /cribus_images_collected_total\{kind="ingest",.*\} 1/);
    assert.match(metrics, new RegExp(`cribus_images_freed_bytes_total\\{.*\\} ${told?.[1]}`));
  });
});
