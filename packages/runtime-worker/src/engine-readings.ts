// The statistics that only the engine has: of containers inside a Sentry, whose own cgroups are empty.

import { CgroupUsage, ContainerPhase } from '@cribus/contracts/gen/node/v1/records.ts';
import type { Readings } from './background-readings.ts';
import type { Worker } from './worker.ts';

/** A call that takes longer hangs. */
const CALL_BUDGET_MS = 10_000;

export interface EngineReadings extends Readings {
  get(id: string): CgroupUsage | undefined;
}

/**
 * One engine process at a time (runsc: 20 ms of a processor), for each container every three seconds
 * or twenty times the length of the call, whichever is longer.
 */
export function createEngineReadings(worker: Worker): EngineReadings {
  const { clock } = worker.service;
  const usages = new Map<string, CgroupUsage>();
  const isRunning = (id: string) => worker.store.get(id)?.phase === ContainerPhase.RUNNING;
  return {
    name: 'statistics of the engine',
    everyMs: 3_000,
    share: 20,
    firstWaitMs: 1_500,
    due: () =>
      worker.store
        .all()
        .filter(({ sandboxProcess, id }) => !sandboxProcess && isRunning(id))
        .map(({ id }) => id),
    has: (id) => usages.has(id),
    get: (id) => usages.get(id),
    prune: () => {
      for (const id of usages.keys()) if (!isRunning(id)) usages.delete(id);
    },
    read: async (id, signal) => {
      const bound = AbortSignal.any([signal, clock.timeout(CALL_BUDGET_MS)]);
      const stats = await worker.engine.stats(id, bound);
      if (stats === undefined || !isRunning(id)) return;
      const limit = worker.store.get(id)?.resources?.memoryLimitInBytes ?? 0n;
      // The Sentry counts whole ticks of 10 ms, and what ran has used more than nothing.
      const before = usages.get(id)?.cpuNs ?? 1n;
      usages.set(
        id,
        CgroupUsage.fromPartial({
          sampledAtNs: clock.nowNs(),
          // The Sentry's share of the host's count is an estimate that may step back a little.
          cpuNs: stats.cpuNs > before ? stats.cpuNs : before,
          memoryUsageBytes: stats.memoryBytes,
          // The Sentry's cache is no part of it.
          memoryWorkingSetBytes: stats.memoryBytes,
          processCount: stats.processes,
          ...(limit > 0n ? { memoryLimitBytes: limit } : {}),
        }),
      );
    },
  };
}
