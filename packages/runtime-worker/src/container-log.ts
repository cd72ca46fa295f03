// Where a container's log is, and whether its monitor will be able to write it: conmon itself would
// end without a word, and with it the container.

import { constants } from 'node:fs';
import { mkdir, open, rm } from 'node:fs/promises';
import { dirname, isAbsolute, join, normalize } from 'node:path';
import type { Rollback } from '@cribus/chassis/rollback.ts';
import { Failure, type FailureKind } from '@cribus/contracts/failure.ts';
import { isErrno } from '@cribus/host/errno.ts';

/** As conmon makes it. */
const LOG_MODE = 0o640;

/** Empty where the pod has no log directory or the container no log. */
export function logPathOf(logDirectory: string, logPath: string): string {
  if (logDirectory === '' || logPath === '') return '';
  if (!isAbsolute(logDirectory)) {
    throw new Failure('invalid_argument', `log directory "${logDirectory}" is not absolute`);
  }
  const path = normalize(join(logDirectory, logPath));
  if (!path.startsWith(`${normalize(logDirectory).replace(/\/$/, '')}/`) || path.endsWith('/')) {
    throw new Failure('invalid_argument', `log path "${logPath}" leaves ${logDirectory}`);
  }
  return path;
}

/**
 * Makes the directories and the log, which may be there already; one that was not goes with an undo of
 * the container's creation. Raises a failure that names the path
 * and the reason: limit for a full disk, invalid_argument for a path that can be no log.
 */
export async function prepareLog(
  { id: containerId, logPath }: { readonly id: string; readonly logPath: string },
  rollback: Rollback,
): Promise<void> {
  if (logPath === '') return;
  let made = false;
  rollback.add('remove the log', async () => {
    if (made) await rm(logPath, { force: true });
  });
  try {
    await mkdir(dirname(logPath), { recursive: true });
    made = await touch(logPath);
  } catch (error) {
    throw logFailure(containerId, error, 'invalid_argument');
  }
}

/**
 * Finds out whether a new log could be opened in the place of one that was renamed away. Raises limit
 * or wrong_state; leaves nothing there.
 */
export async function tryNewLog(containerId: string, logPath: string): Promise<void> {
  // Where conmon makes it, before it renames it.
  const trial = `${logPath}.tmp`;
  try {
    await touch(trial);
    await rm(trial);
  } catch (error) {
    throw logFailure(containerId, error, 'wrong_state');
  }
}

/** Opens for writing; true where there was no file before. */
async function touch(path: string): Promise<boolean> {
  // Non-blocking, as it may be a fifo that nobody reads.
  const { O_WRONLY, O_APPEND, O_CREAT, O_EXCL, O_NONBLOCK } = constants;
  const flags = O_WRONLY | O_APPEND | O_NONBLOCK;
  try {
    const file = await open(path, flags | O_CREAT | O_EXCL, LOG_MODE);
    await file.close();
    return true;
  } catch (error) {
    if (!isErrno(error, 'EEXIST')) throw error;
    // A link that leads nowhere exists too.
    const file = await open(path, flags | O_CREAT, LOG_MODE);
    await file.close();
    return false;
  }
}

function logFailure(containerId: string, error: unknown, otherwise: FailureKind): unknown {
  if (!(error instanceof Error) || !('code' in error)) return error;
  const kind = isErrno(error, 'ENOSPC', 'EDQUOT', 'EMFILE', 'ENFILE') ? 'limit' : otherwise;
  return new Failure(kind, `the log of container ${containerId}: ${error.message}`, {
    stage: 'log',
    cause: error,
  });
}
