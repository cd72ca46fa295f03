// Who may have an engine start a command: a few at once, as the processors can, and a sandbox that hangs
// holds up its own commands only.

import { createKeyedLock, createSemaphore } from '@cribus/chassis/queue.ts';

export interface ExecStart {
  /** Whether its end was not awaited any longer; undefined where the caller left before. */
  readonly hangs: boolean | undefined;
}

export interface ExecStarts {
  /**
   * Runs a start of a command in the sandbox, which has a maximum of time, when there is a place for it.
   * Raises the signal's reason when it aborts before, and limit when too many wait.
   */
  run<T extends ExecStart>(
    sandboxId: string,
    start: () => Promise<T>,
    signal: AbortSignal,
  ): Promise<T>;
  /** A sandbox that is removed. */
  forget(sandboxId: string): void;
}

/**
 * So many places. Where a start hangs the sandbox's next ones follow each other without a place, as they
 * are no work for a processor, until one of them is done in time.
 */
export function createExecStarts(placesMax: number): ExecStarts {
  const places = createSemaphore(placesMax);
  const oneByOne = createKeyedLock();
  const hanging = new Set<string>();
  return {
    run: async (sandboxId, start, signal) => {
      const followed = async () => {
        const outcome = await start();
        if (outcome.hangs === true) hanging.add(sandboxId);
        if (outcome.hangs === false) hanging.delete(sandboxId);
        return outcome;
      };
      // Its first may have begun to hang while this one waited for its place.
      const placed = hanging.has(sandboxId)
        ? undefined
        : await places.run(
            async () => (hanging.has(sandboxId) ? undefined : await followed()),
            signal,
          );
      return placed ?? (await oneByOne.run(sandboxId, followed, signal));
    },
    forget: (sandboxId) => {
      hanging.delete(sandboxId);
    },
  };
}
