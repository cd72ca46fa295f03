// The only place that reads the time or sets a timer; everything else is handed a Clock.

export interface Clock {
  /** Wall clock, nanoseconds since 1970, strictly increasing within the process. */
  nowNs(): bigint;
  /** Monotonic milliseconds, for measuring and for budgets. */
  monotonicMs(): number;
  /** Resolves after `ms`; rejects with the signal's reason when it is aborted. */
  sleep(ms: number, signal?: AbortSignal): Promise<void>;
  /** A signal that aborts after `ms` with a TimeoutError; its timer does not keep the process up. */
  timeout(ms: number): AbortSignal;
}

export const systemClock: Clock = {
  nowNs: () => {
    throw new Error('not built');
  },
  monotonicMs: () => {
    throw new Error('not built');
  },
  sleep: () => {
    throw new Error('not built');
  },
  timeout: () => {
    throw new Error('not built');
  },
};
