// What an answered call leaves behind at the gateway.

import assert from 'node:assert/strict';
import { getEventListeners } from 'node:events';
import type { Bus } from '@cribus/chassis/bus.ts';
import { createMetrics } from '@cribus/chassis/metrics.ts';
import { runtimeOwner } from '@cribus/contracts/subjects.ts';
import { systemClock } from '@cribus/host/clock.ts';
import { Metadata, type ServerUnaryCall } from '@grpc/grpc-js';
import { describe, it } from 'mocha';
import { wrapVerb } from './call.ts';
import type { Gateway, Verb } from './gateway.ts';
import { silent } from './testing/start-gateway.ts';

describe('a call of the kubelet', () => {
  it('listens to the end of the service while an owner is asked, and no longer', async () => {
    const stopping = new AbortController().signal;
    const listening = () => getEventListeners(stopping, 'abort').length;
    const during: number[] = [];
    const bus = {
      ask: async () => {
        during.push(listening());
        return { result: {}, changed: [] };
      },
    } as unknown as Bus;
    const gateway = {
      clock: systemClock,
      owners: { requireAlive: () => undefined },
      view: { container: () => undefined, sandbox: () => undefined },
    } as unknown as Gateway;
    const verb: Verb<{ containerId: string }, object> = async (request, call) => {
      await call.ask('remove-container', request, { owner: runtimeOwner('runc') });
      return {};
    };
    const handle = wrapVerb('RemoveContainer', {
      gateway,
      bus,
      log: silent,
      metrics: createMetrics('cri-gateway'),
      stopping,
      leaving: stopping,
      mutates: true,
      verb,
    });
    const call = {
      request: { containerId: 'one' },
      metadata: new Metadata(),
      getDeadline: () => Number.POSITIVE_INFINITY,
      on: () => undefined,
    } as unknown as ServerUnaryCall<{ containerId: string }, object>;
    for (let count = 0; count < 100; count += 1) {
      await new Promise<void>((resolve) => handle(call, () => resolve()));
    }
    assert.deepEqual(
      during,
      Array.from({ length: 100 }, () => 1),
    );
    assert.equal(listening(), 0);
  });
});
