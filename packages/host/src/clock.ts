// The only place that reads the time or sets a timer; everything else is handed a Clock.

export interface Clock {
  /** Wall clock, nanoseconds since 1970, strictly increasing within the process. */
  nowNs(): bigint;
  /** Monotonic milliseconds, for measuring and for budgets. */
  monotonicMs(): number;
  /** Resolves after `ms`; rejects with the signal's reason when it is aborted. */
  sleep(ms: number, signal?: AbortSignal): Promise<void>;
  /** A signal that aborts after `ms` with a TimeoutError; its timer keeps no process up. */
  timeout(ms: number): AbortSignal;
}

/** Node fires a timer at once whose delay does not fit in 31 bits. */
const TIMER_MS_MAX = 2 ** 31 - 1;

let lastNs = 0n;

export const systemClock: Clock = {
  nowNs: () => {
    // performance.timeOrigin would drift from a wall clock that is stepped, so Date gives the
    // milliseconds; the count beyond the last answer keeps the order within one millisecond.
    const wallNs = BigInt(Date.now()) * 1_000_000n;
    lastNs = wallNs > lastNs ? wallNs : lastNs + 1n;
    return lastNs;
  },
  monotonicMs: () => performance.now(),
  sleep: (ms, signal) =>
    new Promise((resolve, reject) => {
      if (signal?.aborted) {
        reject(signal.reason);
        return;
      }
      const onAbort = () => {
        clearTimeout(timer);
        reject(signal?.reason);
      };
      const timer = setTimeout(
        () => {
          signal?.removeEventListener('abort', onAbort);
          resolve();
        },
        Math.min(ms, TIMER_MS_MAX),
      );
      signal?.addEventListener('abort', onAbort, { once: true });
    }),
  timeout: (ms) => AbortSignal.timeout(Math.max(0, Math.min(Math.ceil(ms), TIMER_MS_MAX))),
};
