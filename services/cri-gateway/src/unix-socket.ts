// A place for a unix socket: only root's, short enough, and taken over from nobody who answers there.

import { mkdir } from 'node:fs/promises';
import { dirname } from 'node:path';
import { Failure } from '@cribus/contracts/failure.ts';
import { SOCKET_PATH_BYTES_MAX } from '@cribus/contracts/paths.ts';
import { removeLeftSocket } from '@cribus/host/sockets.ts';

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
  if (!(await removeLeftSocket(path))) {
    throw new Failure('already_exists', `another server answers on ${path} (${key})`, {
      stage: 'listen',
    });
  }
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
