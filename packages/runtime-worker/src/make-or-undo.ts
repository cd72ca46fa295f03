// Making a container or a sandbox's process: whatever fails, nothing stays; and what can't be undone
// stays listed, so that its caller can remove it.

import type { VerbContext } from '@cribus/chassis/owner.ts';
import { type Rollback, withRollback } from '@cribus/chassis/rollback.ts';
import { keepAsUnknown } from './phases.ts';
import type { Worker } from './worker.ts';

/** Runs `make`; when it fails, its undos, and then raises its failure. */
export async function makeOrUndo<T>(
  worker: Worker,
  { id, context }: { readonly id: string; readonly context: VerbContext },
  make: (rollback: Rollback) => Promise<T>,
): Promise<T> {
  let undoError: unknown;
  const onUndoFailed = (_step: string, error: unknown) => {
    undoError ??= error;
  };
  try {
    return await withRollback({ log: context.log, onUndoFailed }, make);
  } catch (error) {
    if (undoError !== undefined) {
      const why = `its creation failed (${error instanceof Error ? error.message : String(error)})`;
      await keepAsUnknown(worker, id, { why, error: undoError, changed: context.changed });
    }
    throw error;
  }
}
