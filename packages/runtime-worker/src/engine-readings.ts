// The statistics that only the engine has: of containers inside a Sentry, whose own cgroups are empty.
// Its process is too dear for every sample: between two of its readings a container is given that share
// of what the Sentry's own cgroup counts that it had last.

import {
  CgroupUsage,
  ContainerPhase,
  type ContainerRecord,
} from '@cribus/contracts/gen/node/v1/records.ts';
import { withJoinedSignal } from '@cribus/host/joined-signals.ts';
import type { Readings } from './background-readings.ts';
import type { EngineStats } from './engine.ts';
import { recordsOfSandbox, type Worker } from './worker.ts';

/** A call that takes longer hangs. */
const CALL_BUDGET_MS = 10_000;

export interface EngineReadings extends Readings {
  /** What a container uses now; undefined before its first reading. */
  get(record: ContainerRecord): CgroupUsage | undefined;
}

/** A reading, and what the Sentry had used by then. */
export interface EngineReading {
  readonly stats: EngineStats;
  readonly atNs: bigint;
  readonly sentryNs: bigint | undefined;
  /** Of the Sentry's use, in millionths. */
  readonly shareMillionths: bigint;
}

/**
 * One engine process at a time (runsc: 20 ms of a processor), for each container every three seconds
 * or twenty times the length of the call, whichever is longer.
 */
export function createEngineReadings(worker: Worker): EngineReadings {
  const { clock } = worker.service;
  const readings = new Map<string, EngineReading>();
  /** What was last told of each: an estimate may turn out too high, and a counter never falls. */
  const told = new Map<string, bigint>();
  const isRunning = (id: string) => worker.store.get(id)?.phase === ContainerPhase.RUNNING;
  const sentryNs = (sandboxId: string): bigint | undefined => {
    const sentry = recordsOfSandbox(worker, sandboxId).find((record) => record.sandboxProcess);
    const path = sentry?.cgroupPath ?? '';
    return path === '' ? undefined : worker.cgroups.usage(path).cpuNs;
  };
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
    has: (id) => readings.has(id),
    get: (record) => {
      const reading = readings.get(record.id);
      if (reading === undefined) return undefined;
      const nowNs = clock.nowNs();
      const live = estimate(reading, sentryNs(record.sandboxId));
      // The Sentry counts whole ticks of 10 ms, and what ran has used more than nothing.
      const before = told.get(record.id) ?? 1n;
      const cpuNs = live.cpuNs > before ? live.cpuNs : before;
      told.set(record.id, cpuNs);
      const limit = record.resources?.memoryLimitInBytes ?? 0n;
      const { memoryBytes, processes } = reading.stats;
      return CgroupUsage.fromPartial({
        sampledAtNs: live.isLive ? nowNs : reading.atNs,
        cpuNs,
        memoryUsageBytes: memoryBytes,
        // The Sentry's cache is no part of it.
        memoryWorkingSetBytes: memoryBytes,
        processCount: processes,
        ...(limit > 0n ? { memoryLimitBytes: limit } : {}),
      });
    },
    prune: () => {
      for (const id of readings.keys()) {
        if (isRunning(id)) continue;
        readings.delete(id);
        told.delete(id);
      }
    },
    read: async (id, signal) => {
      const stats = await withJoinedSignal([signal, clock.timeout(CALL_BUDGET_MS)], (bound) =>
        worker.engine.stats(id, bound),
      );
      const record = worker.store.get(id);
      if (stats === undefined || record === undefined || !isRunning(id)) return;
      const now = { stats, atNs: clock.nowNs(), sentryNs: sentryNs(record.sandboxId) };
      readings.set(id, { ...now, shareMillionths: shareOf(readings.get(id), now) });
    },
  };
}

/** Processor time now, if the Sentry goes on being shared as it was. */
export function estimate(
  reading: EngineReading,
  sentryNs: bigint | undefined,
): { readonly cpuNs: bigint; readonly isLive: boolean } {
  const { stats, sentryNs: atReadingNs, shareMillionths } = reading;
  if (sentryNs === undefined || atReadingNs === undefined || sentryNs < atReadingNs) {
    return { cpuNs: stats.cpuNs, isLive: false };
  }
  const sinceNs = ((sentryNs - atReadingNs) * shareMillionths) / 1_000_000n;
  return { cpuNs: stats.cpuNs + sinceNs, isLive: true };
}

/** Since the reading before, or since the start. */
export function shareOf(
  before: EngineReading | undefined,
  now: Pick<EngineReading, 'stats' | 'sentryNs'>,
): bigint {
  if (now.sentryNs === undefined) return 0n;
  const usedNs = now.stats.cpuNs - (before?.stats.cpuNs ?? 0n);
  const ofNs = now.sentryNs - (before?.sentryNs ?? 0n);
  if (usedNs <= 0n || ofNs <= 0n) return 0n;
  return usedNs >= ofNs ? 1_000_000n : (usedNs * 1_000_000n) / ofNs;
}
