// A place for a unix socket: only root's, short enough, and taken over from nobody who answers there.

import { existsSync } from 'node:fs';
import { mkdir, unlink } from 'node:fs/promises';
import { connect } from 'node:net';
import { dirname } from 'node:path';
import { Failure } from '@cribus/contracts/failure.ts';
import { SOCKET_PATH_BYTES_MAX } from '@cribus/contracts/paths.ts';
import { isErrno } from '@cribus/host/errno.ts';

/** Only root talks to the runtime. */
const SOCKET_UMASK = 0o177;

/**
 * Makes the directory, and removes a socket that nobody answers on. Answers the topmost directory that
 * was absent. Raises invalid_argument for a path that is too long, already_exists when another server
 * answers there; `key` is what the configuration calls it.
 */
export async function preparePath(path: string, key: string): Promise<string | undefined> {
  checkSocketPath(path, key);
  const made = await mkdir(dirname(path), { recursive: true });
  await removeStaleSocket(path, key);
  return made;
}

/** What `listen` makes is only root's. */
export async function listenAsRoot<T>(listen: () => Promise<T>): Promise<T> {
  const umask = process.umask(SOCKET_UMASK);
  try {
    return await listen();
  } finally {
    process.umask(umask);
  }
}

/** Raises invalid_argument for a path that Linux would cut (unix(7)). */
function checkSocketPath(path: string, key: string): void {
  const bytes = Buffer.byteLength(path);
  if (bytes <= SOCKET_PATH_BYTES_MAX) return;
  throw new Failure(
    'invalid_argument',
    `${path} has ${bytes} bytes; a unix socket's path has at most ${SOCKET_PATH_BYTES_MAX}`,
    { stage: key },
  );
}

/** A socket that nobody answers on is left over from a process that was killed. */
async function removeStaleSocket(path: string, key: string): Promise<void> {
  if (!existsSync(path)) return;
  const answered = await new Promise<boolean>((resolve) => {
    const probe = connect(path);
    probe.once('connect', () => {
      probe.destroy();
      resolve(true);
    });
    probe.once('error', () => resolve(false));
  });
  if (answered) {
    throw new Failure('already_exists', `another server answers on ${path} (${key})`, {
      stage: 'listen',
    });
  }
  try {
    await unlink(path);
  } catch (error) {
    if (!isErrno(error, 'ENOENT')) throw error;
  }
}
