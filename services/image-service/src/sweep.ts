// What a crash or a removal left is cleared at start and every ten minutes: leases of containers that
// are gone, layers and blobs that nothing names, half-done ingests.

import { randomUUID } from 'node:crypto';
import { askPages } from '@cribus/chassis/pages.ts';
import type { Service } from '@cribus/chassis/service.ts';
import { isFailure } from '@cribus/contracts/failure.ts';
import { InventoryRequest } from '@cribus/contracts/gen/node/v1/verbs.ts';
import { runtimeOwner, VERBS } from '@cribus/contracts/subjects.ts';
import { withJoinedSignal } from '@cribus/host/joined-signals.ts';
import type { ImageStore } from './image-store.ts';

interface Deps {
  readonly service: Service;
  readonly store: ImageStore;
}

const SWEEP_INTERVAL_MS = 10 * 60_000;
const INVENTORY_TIMEOUT_MS = 30_000;
/** A younger lease may belong to a container whose record is being written. */
const LEASE_AGE_MIN_MS = VERBS['create-container'].budgetMs + 30_000;

/** Sweeps until the service stops. */
export async function sweepForEver(deps: Deps): Promise<void> {
  const { service, store } = deps;
  const { clock, stopping } = service;
  // The second comes as soon as what was too young for the first is old enough.
  for (let pauseMs = LEASE_AGE_MIN_MS; !stopping.aborted; pauseMs = SWEEP_INTERVAL_MS) {
    try {
      await endOrphanedLeases(deps);
      await store.sweep();
    } catch (error) {
      if (stopping.aborted) return;
      service.log.warn({ err: error }, 'A sweep failed and is tried again later.');
    }
    await clock.sleep(pauseMs, stopping).catch(() => {});
  }
}

async function endOrphanedLeases({ service, store }: Deps): Promise<void> {
  const handlers = new Set(store.leases.all().map((lease) => lease.handler));
  for (const handler of handlers) {
    const askedAtNs = service.clock.nowNs();
    let living: Set<string>;
    try {
      living = await containersOf(service, handler);
    } catch (error) {
      if (!isFailure(error) && !(error instanceof Error && error.name === 'TimeoutError'))
        throw error;
      // A worker that is down keeps its leases: its containers may well run.
      service.log.info({ handler, why: error.message }, 'The leases of this handler stay.');
      continue;
    }
    for (const lease of store.leases.all()) {
      const old = lease.takenAtNs < askedAtNs - BigInt(LEASE_AGE_MIN_MS) * 1_000_000n;
      if (lease.handler !== handler || living.has(lease.id) || !old) continue;
      service.log.info({ lease: lease.id, handler }, 'A lease whose container is gone has ended.');
      await store.exclusively(() => store.removeLease(lease.id));
      store.collected.add('lease', 1, 0n);
    }
  }
}

/** Every container of a handler, from its complete inventory. */
async function containersOf(service: Service, handler: string): Promise<Set<string>> {
  const ids = new Set<string>();
  const ask = async (pageToken: string) => {
    const request = InventoryRequest.fromPartial({ pageToken });
    const limits = [service.stopping, service.clock.timeout(INVENTORY_TIMEOUT_MS)];
    const { result } = await withJoinedSignal(limits, (signal) =>
      service.bus.ask('inventory', request, {
        owner: runtimeOwner(handler),
        signal,
        requestId: randomUUID(),
      }),
    );
    return result;
  };
  for await (const { objects } of askPages(ask)) {
    for (const report of objects) ids.add(report.id);
  }
  return ids;
}
