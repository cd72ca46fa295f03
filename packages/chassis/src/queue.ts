// Small concurrency pieces with a maximum.

import { Failure } from '@cribus/contracts/failure.ts';
import { orAborted } from './abort.ts';

/** Runs work for one key at a time, in order; keys do not wait for each other. */
export interface KeyedLock {
  /** Raises the signal's reason when it aborts before the work has begun, which then never does. */
  run<T>(key: string, work: () => Promise<T>, signal?: AbortSignal): Promise<T>;
}

/** Makes a lock that remembers a key only while somebody holds it or waits for it. */
export function createKeyedLock(): KeyedLock {
  const tails = new Map<string, Promise<void>>();
  return {
    async run(key, work, signal) {
      const before = tails.get(key) ?? Promise.resolve();
      let release = () => {};
      const after = new Promise<void>((resolve) => {
        release = resolve;
      });
      tails.set(key, after);
      const leave = () => {
        release();
        if (tails.get(key) === after) tails.delete(key);
      };
      try {
        await (signal === undefined ? before : orAborted(before, signal));
      } catch (error) {
        // Those behind us still wait for those before us.
        void before.then(leave);
        throw error;
      }
      try {
        return await work();
      } finally {
        leave();
      }
    },
  };
}

/** At most `max` at a time; the others wait in order, or leave when their signal aborts. */
export interface Semaphore {
  run<T>(work: () => Promise<T>, signal: AbortSignal): Promise<T>;
}

/** More callers than this waiting at once is refused as `limit`: they would wait for nothing. */
export const SEMAPHORE_WAITERS_MAX = 10_000;

/** Makes a semaphore; `run` raises the signal's reason, or limit when too many wait already. */
export function createSemaphore(max: number): Semaphore {
  const waiters = new Set<() => void>();
  let free = max;

  function acquire(signal: AbortSignal): Promise<void> {
    signal.throwIfAborted();
    if (free > 0) {
      free -= 1;
      return Promise.resolve();
    }
    if (waiters.size >= SEMAPHORE_WAITERS_MAX) {
      throw new Failure(
        'limit',
        `${waiters.size} operations wait for one of ${max} places already`,
      );
    }
    return new Promise((resolve, reject) => {
      const onAbort = () => {
        waiters.delete(enter);
        reject(signal.reason);
      };
      const enter = () => {
        signal.removeEventListener('abort', onAbort);
        resolve();
      };
      waiters.add(enter);
      signal.addEventListener('abort', onAbort, { once: true });
    });
  }

  function release(): void {
    const [next] = waiters;
    if (next === undefined) {
      free += 1;
      return;
    }
    waiters.delete(next);
    next();
  }

  return {
    async run(work, signal) {
      await acquire(signal);
      try {
        return await work();
      } finally {
        release();
      }
    },
  };
}
