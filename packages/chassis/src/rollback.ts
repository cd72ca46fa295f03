// Undo, registered before the effect.

import { type Clock, systemClock } from '@cribus/host/clock.ts';
import { withJoinedSignal } from '@cribus/host/joined-signals.ts';
import type { Logger } from './log.ts';

export interface Rollback {
  /** Registers how to undo what comes next. Idempotent: the effect may have happened, or half, or not. */
  add(step: string, undo: (signal: AbortSignal) => Promise<void> | void): void;
}

/** Each undo has this long unless its caller says otherwise (containerd's clean-up has 10 s too). */
export const UNDO_TIMEOUT_MS = 10_000;

/**
 * Runs `work`; when it throws, runs the registered undos in reverse, each under its own bounded
 * signal (never the caller's), and rethrows the original error. If an undo fails too it is logged,
 * `onUndoFailed` is called with the step, and the remaining undos still run. An undo that ignores
 * its signal is left behind when its time is over, and counts as failed.
 */
export async function withRollback<T>(
  options: {
    readonly log: Logger;
    readonly undoTimeoutMs?: number;
    readonly onUndoFailed?: (step: string, error: unknown) => void;
    readonly clock?: Clock;
  },
  work: (rollback: Rollback) => Promise<T>,
): Promise<T> {
  const steps: { readonly step: string; readonly undo: Parameters<Rollback['add']>[1] }[] = [];
  try {
    return await work({ add: (step, undo) => void steps.push({ step, undo }) });
  } catch (error) {
    for (const { step, undo } of steps.reverse()) {
      try {
        const limitMs = options.undoTimeoutMs ?? UNDO_TIMEOUT_MS;
        await bounded(undo, limitMs, options.clock ?? systemClock);
        options.log.debug({ step }, 'undone');
      } catch (undoError) {
        options.log.error({ step, error: undoError, undoing: error }, 'an undo failed');
        options.onUndoFailed?.(step, undoError);
      }
    }
    throw error;
  }
}

async function bounded(
  undo: (signal: AbortSignal) => Promise<void> | void,
  limitMs: number,
  clock: Clock,
): Promise<void> {
  const waiting = new AbortController();
  await withJoinedSignal([clock.timeout(limitMs), waiting.signal], async (signal) => {
    const late = new Promise<never>((_resolve, reject) => {
      signal.addEventListener('abort', () => reject(signal.reason), { once: true });
    });
    late.catch(() => undefined);
    try {
      await Promise.race([undo(signal), late]);
    } finally {
      waiting.abort();
    }
  });
}
