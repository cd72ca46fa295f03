// Undo, registered before the effect.

import type { Logger } from './log.ts';

export interface Rollback {
  /** Registers how to undo what comes next. Idempotent: the effect may have happened, or half, or not. */
  add(step: string, undo: (signal: AbortSignal) => Promise<void> | void): void;
}

/**
 * Runs `work`; when it throws, runs the registered undos in reverse, each under its own bounded
 * signal (never the caller's), and rethrows the original error. If an undo fails too it is logged,
 * `onUndoFailed` is called with the step, and the remaining undos still run.
 */
export async function withRollback<T>(
  _options: {
    readonly log: Logger;
    readonly undoTimeoutMs?: number;
    readonly onUndoFailed?: (step: string, error: unknown) => void;
  },
  _work: (rollback: Rollback) => Promise<T>,
): Promise<T> {
  throw new Error('not built');
}
