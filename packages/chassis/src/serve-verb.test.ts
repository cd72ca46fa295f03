// What a served verb leaves behind at its owner.

import assert from 'node:assert/strict';
import { getEventListeners } from 'node:events';
import { Failure } from '@cribus/contracts/failure.ts';
import {
  CheckpointContainerRequest,
  InventoryRequest,
} from '@cribus/contracts/gen/node/v1/verbs.ts';
import { runtimeOwner } from '@cribus/contracts/subjects.ts';
import { systemClock } from '@cribus/host/clock.ts';
import { describe, it } from 'mocha';
import type { BusMessage } from './bus.ts';
import { createEndpointStats } from './discovery.ts';
import { createMetrics } from './metrics.ts';
import type { Operations } from './operations.ts';
import { createVerbServer, type ServedVerb } from './serve-verb.ts';
import type { Service } from './service.ts';
import { createTestLog } from './testing/fake-service.ts';

describe('a served verb', () => {
  it('listens to the end of its owner while it runs, and no longer, also when it fails', async () => {
    const ending = new AbortController().signal;
    const listening = () => getEventListeners(ending, 'abort').length;
    const service = {
      bus: { maxPayloadBytes: () => 1_000_000 },
      clock: systemClock,
      log: createTestLog().log,
      metrics: createMetrics('test'),
    } as unknown as Service;
    const server = createVerbServer({
      service,
      owner: runtimeOwner('runc'),
      stores: [],
      operations: { run: (_ask, work) => work() } as Operations,
      signal: ending,
    });
    const during: number[] = [];
    const handler: ServedVerb = async () => {
      during.push(listening());
      if (during.length % 2 === 0) throw new Failure('wrong_state', 'no');
      return { objects: [], nextPageToken: '', status: undefined };
    };
    const serve = server.serve('inventory', handler, createEndpointStats());
    const ask = () =>
      new Promise<void>((resolve) => {
        serve({
          data: InventoryRequest.encode(InventoryRequest.fromPartial({})).finish(),
          reply: 'inbox',
          header: () => '',
          respond: () => resolve(),
        } as unknown as BusMessage);
      });
    for (let count = 0; count < 100; count += 1) await ask();
    assert.deepEqual(new Set(during), new Set([1]));
    assert.equal(during.length, 100);
    assert.equal(listening(), 0);
  });

  it('is given the time that its request asks for on top of its budget', async () => {
    const budgetsMs: number[] = [];
    const timeout = (ms: number) => {
      budgetsMs.push(ms);
      return new AbortController().signal;
    };
    const service = {
      bus: { maxPayloadBytes: () => 1_000_000 },
      clock: { ...systemClock, timeout },
      log: createTestLog().log,
      metrics: createMetrics('test'),
    } as unknown as Service;
    const server = createVerbServer({
      service,
      owner: runtimeOwner('runc'),
      stores: [],
      operations: { run: (_ask, work) => work() } as Operations,
      signal: new AbortController().signal,
    });
    const serve = server.serve('checkpoint-container', async () => ({}), createEndpointStats());
    const request = { containerId: 'c', location: '/a', timeoutS: 1_800n };
    await new Promise<void>((resolve) => {
      serve({
        data: CheckpointContainerRequest.encode(request).finish(),
        reply: 'inbox',
        header: () => '',
        respond: () => resolve(),
      } as unknown as BusMessage);
    });
    assert.deepEqual(budgetsMs, [2_400_000]);
  });
});
