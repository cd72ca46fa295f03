// Readings that are too slow for a sample: taken one after the other in the background, for as long as
// somebody samples, each as often as it can afford.

import type { Service } from '@cribus/chassis/service.ts';
import { withJoinedSignal } from '@cribus/host/joined-signals.ts';

/** One kind of slow reading. */
export interface Readings {
  readonly name: string;
  /** What could be read now, and how long to wait between two readings of one. */
  due(): readonly string[];
  /** Reads one; failures are its own business. */
  read(id: string, signal: AbortSignal): Promise<void>;
  /** True when it was read before. */
  has(id: string): boolean;
  /** Forgets what is gone. */
  prune(): void;
  readonly everyMs: number;
  /** Of the time, at most one part in so many is spent reading one thing. */
  readonly share: number;
  /** How long a sample waits for what was never read. */
  readonly firstWaitMs: number;
}

export interface Background {
  /** Keeps the readings going for a minute; waits, not long, for what was never read. */
  asked(signal: AbortSignal): Promise<void>;
}

const GOES_ON_MS = 60_000;
/** However slow one reading is, it comes again after this. */
const EVERY_MS_MAX = 120_000;
const LOOK_MS = 250;

/** Makes the loops, which run only while somebody asks. */
export function createBackground(
  service: Pick<Service, 'clock' | 'stopping' | 'background' | 'log'>,
  kinds: readonly Readings[],
): Background {
  const loops = kinds.map((readings) => createLoop(service, readings));
  return {
    asked: async (signal) => {
      await Promise.all(loops.map((loop) => loop.asked(signal)));
    },
  };
}

function createLoop(
  { clock, stopping, background, log }: Pick<Service, 'clock' | 'stopping' | 'background' | 'log'>,
  readings: Readings,
) {
  const nextAtMs = new Map<string, number>();
  let goesOnUntilMs = 0;
  let running = false;
  let wake = new AbortController();
  let waiters: (() => void)[] = [];

  const unread = () => readings.due().some((id) => !readings.has(id) && !nextAtMs.has(id));
  const settle = (): void => {
    if (unread()) return;
    for (const waiter of waiters) waiter();
    waiters = [];
  };
  const readOne = async (id: string): Promise<void> => {
    const startedMs = clock.monotonicMs();
    try {
      await readings.read(id, stopping);
    } catch (error) {
      if (stopping.aborted) return;
      log.debug({ id, error: String(error) }, `${readings.name} could not be read`);
    }
    const tookMs = clock.monotonicMs() - startedMs;
    const restMs = Math.min(Math.max(readings.everyMs, tookMs * readings.share), EVERY_MS_MAX);
    nextAtMs.set(id, clock.monotonicMs() + restMs);
  };
  const loop = async (): Promise<void> => {
    while (!stopping.aborted && clock.monotonicMs() < goesOnUntilMs) {
      readings.prune();
      const known = new Set(readings.due());
      for (const id of nextAtMs.keys()) if (!known.has(id)) nextAtMs.delete(id);
      const due = [...known].filter((id) => (nextAtMs.get(id) ?? 0) <= clock.monotonicMs());
      // What was never read comes first, also when it comes in between.
      due.sort((a, b) => (nextAtMs.get(a) ?? 0) - (nextAtMs.get(b) ?? 0));
      wake = new AbortController();
      for (const id of due) {
        if (stopping.aborted || wake.signal.aborted) break;
        await readOne(id);
        // A reading may have been one synchronous step.
        await clock.sleep(0, stopping).catch(() => undefined);
      }
      settle();
      if (due.length > 0) continue;
      const rest = withJoinedSignal([stopping, wake.signal], (over) => clock.sleep(LOOK_MS, over));
      await rest.catch(() => undefined);
    }
  };
  return {
    asked: async (signal: AbortSignal): Promise<void> => {
      goesOnUntilMs = clock.monotonicMs() + GOES_ON_MS;
      if (!running) {
        running = true;
        const ended = loop().finally(() => {
          running = false;
          nextAtMs.clear();
          for (const waiter of waiters) waiter();
          waiters = [];
        });
        background(readings.name, ended);
      }
      if (!unread()) return;
      wake.abort();
      const all = new Promise<void>((resolve) => void waiters.push(resolve));
      await withJoinedSignal([signal, stopping], (limit) =>
        Promise.race([all, clock.sleep(readings.firstWaitMs, limit)]),
      );
    },
  };
}
