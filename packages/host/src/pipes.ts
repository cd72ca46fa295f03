// A pipe(2) of which one end goes to a child by number (SpawnOptions.fds).

import { checked, libc } from './libc.ts';

/** From <fcntl.h>; the same on x86-64 and arm64. */
const O_CLOEXEC = 0o2000000;

/**
 * Makes a pipe whose ends are closed on exec; a child gets one only where it is named in
 * `SpawnOptions.fds`. The caller closes both. Throws with an errno code.
 */
export function createPipe(): { readonly readFd: number; readonly writeFd: number } {
  const fds = new Int32Array(2);
  checked(libc().pipe2(fds, O_CLOEXEC), 'pipe2', '');
  return { readFd: fds[0] ?? -1, writeFd: fds[1] ?? -1 };
}
