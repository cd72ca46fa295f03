// ExecSync: the verb only prepares a session; the command starts when the session is dialled, so at
// most once. Output flows as frames at the pace of the reader; the maximum is the gateway's.

import type { VerbHandler } from '@cribus/chassis/owner.ts';
import { prepareExec } from './exec-process.ts';
import type { Worker } from './worker.ts';

/** invalid_argument for a command that can't be one, wrong_state unless the container runs. */
export function execSync(worker: Worker): VerbHandler<'exec-sync'> {
  return async ({ containerId, cmd, timeoutS }) =>
    prepareExec(worker, {
      containerId,
      cmd,
      ...{ tty: false, stdin: false, stdout: true, stderr: true },
      timeoutMs: Number(timeoutS) * 1000,
    });
}
