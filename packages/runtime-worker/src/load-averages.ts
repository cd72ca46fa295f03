// How many threads of each container were ready to run, averaged over ten seconds as cAdvisor does it.

import type { Clock } from '@cribus/host/clock.ts';

const WINDOW_MS = 10_000;

interface Load {
  readonly running: number;
  readonly uninterruptible: number;
  readonly atMs: number;
}

/** Averages that decay over ten seconds; the first reading counts whole. */
export function createLoadAverages(clock: Pick<Clock, 'monotonicMs'>) {
  const loads = new Map<string, Load>();
  return {
    /** Adds a reading; the averages times 1000, as cAdvisor shows them. */
    add(id: string, now: { readonly running: bigint; readonly uninterruptible: bigint }) {
      const atMs = clock.monotonicMs();
      const before = loads.get(id);
      const kept = before === undefined ? 0 : Math.exp((before.atMs - atMs) / WINDOW_MS);
      const average = (old: number, value: bigint) => old * kept + Number(value) * (1 - kept);
      const load = {
        running: average(before?.running ?? 0, now.running),
        uninterruptible: average(before?.uninterruptible ?? 0, now.uninterruptible),
        atMs,
      };
      loads.set(id, load);
      return {
        loadAverageMilli: BigInt(Math.round(load.running * 1000)),
        loadDAverageMilli: BigInt(Math.round(load.uninterruptible * 1000)),
      };
    },
    /** Forgets the others. */
    keep(isThere: (id: string) => boolean): void {
      for (const id of loads.keys()) if (!isThere(id)) loads.delete(id);
    },
  };
}
