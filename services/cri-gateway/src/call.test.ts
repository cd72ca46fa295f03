// What an answered call leaves behind at the gateway.

import assert from 'node:assert/strict';
import { getEventListeners } from 'node:events';
import type { Bus } from '@cribus/chassis/bus.ts';
import { createMetrics } from '@cribus/chassis/metrics.ts';
import type { CheckpointContainerRequest } from '@cribus/contracts/gen/cri/v1/api.ts';
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

  it('waits for an owner as long as the request itself asks for, too', async () => {
    const waitsMs: number[] = [];
    const clock = {
      ...systemClock,
      monotonicMs: () => 0,
      timeout: () => new AbortController().signal,
    };
    const bus = {
      ask: async (_verb: string, _request: object, options: { readonly deadlineAtMs: number }) => {
        waitsMs.push(options.deadlineAtMs);
        return { result: {}, changed: [] };
      },
    } as unknown as Bus;
    const gateway = {
      clock,
      owners: { requireAlive: () => undefined },
      view: { container: () => undefined, sandbox: () => undefined },
    } as unknown as Gateway;
    const verb: Verb<CheckpointContainerRequest, object> = async ({ timeout }, call) => {
      const request = { containerId: 'one', location: '/a', timeoutS: timeout };
      return await call.ask('checkpoint-container', request, { owner: runtimeOwner('runc') });
    };
    const stopping = new AbortController().signal;
    const handle = wrapVerb('CheckpointContainer', {
      ...{ gateway, bus, log: silent, metrics: createMetrics('cri-gateway') },
      ...{ stopping, leaving: stopping, mutates: true, verb },
    });
    for (const timeout of [0n, 1_800n]) {
      const call = {
        request: { containerId: 'one', location: '/a', timeout },
        metadata: new Metadata(),
        getDeadline: () => Number.POSITIVE_INFINITY,
        on: () => undefined,
      } as unknown as ServerUnaryCall<CheckpointContainerRequest, object>;
      await new Promise<void>((resolve) => handle(call, () => resolve()));
    }
    const [plain = 0, longer = 0] = waitsMs;
    assert.ok(plain >= 600_000, `${plain}`);
    assert.equal(longer - plain, 1_800_000);
  });
});
