// Gives memory back when a service has grown and is idle.

import type { Clock } from '@cribus/host/clock.ts';
import { releaseMemory } from '@cribus/host/memory.ts';

/** By then a service that starts has done all that it will do by itself. */
const FIRST_AFTER_MS = 2_000;
const LOOK_INTERVAL_MS = 20_000;
/** Less is not worth a pause of 50 ms. */
const GROWN_BYTES = 3 * 1024 * 1024;
/** Of one core, since the last look. */
const IDLE_CPU_SHARE = 0.03;

/** Looks until the signal aborts, and then rejects with its reason. */
export async function keepMemorySmall(clock: Clock, signal: AbortSignal): Promise<never> {
  let releasedBytes = 0;
  let waitMs = FIRST_AFTER_MS;
  for (;;) {
    const before = process.cpuUsage();
    await clock.sleep(waitMs, signal);
    const { user, system } = process.cpuUsage(before);
    const share = (user + system) / 1_000 / waitMs;
    waitMs = releasedBytes === 0 ? FIRST_AFTER_MS : LOOK_INTERVAL_MS;
    if (share > IDLE_CPU_SHARE) continue;
    if (process.memoryUsage.rss() < releasedBytes + GROWN_BYTES) continue;
    releaseMemory();
    releasedBytes = process.memoryUsage.rss();
    waitMs = LOOK_INTERVAL_MS;
  }
}
