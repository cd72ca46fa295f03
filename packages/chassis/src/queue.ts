// Small concurrency pieces with a maximum.

/** Runs work for one key at a time, in order; keys do not wait for each other. */
export interface KeyedLock {
  run<T>(key: string, work: () => Promise<T>): Promise<T>;
}
export function createKeyedLock(): KeyedLock {
  throw new Error('not built');
}

/** At most `max` at a time; the others wait in order, or leave when their signal aborts. */
export interface Semaphore {
  run<T>(work: () => Promise<T>, signal: AbortSignal): Promise<T>;
}
export function createSemaphore(_max: number): Semaphore {
  throw new Error('not built');
}
