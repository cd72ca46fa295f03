// Exec: a command with streams both ways, and a terminal where it is asked for. As for exec-sync, the
// verb only prepares a session.

import type { VerbHandler } from '@cribus/chassis/owner.ts';
import { prepareExec } from './exec-process.ts';
import type { Worker } from './worker.ts';

/** invalid_argument for a command that can't be one, wrong_state unless the container runs. */
export function exec(worker: Worker): VerbHandler<'exec'> {
  return async ({ containerId, cmd, tty, stdin, stdout, stderr }) =>
    prepareExec(worker, { containerId, cmd, tty, stdin, stdout, stderr, timeoutMs: 0 });
}
