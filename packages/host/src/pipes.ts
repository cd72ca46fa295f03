// A pipe(2) of which one end goes to a child by number (SpawnOptions.fds).

import koffi from 'koffi';

const libc = koffi.load('libc.so.6');
const pipe2 = libc.func('int pipe2(_Out_ int *fds, int flags)');
/** fcntl.h on x86_64 and arm64. */
const O_CLOEXEC = 0o2000000;

/**
 * Makes a pipe whose ends are closed on exec; a child gets one only where it is named in
 * `SpawnOptions.fds`. The caller closes both. Throws when no descriptor is left.
 */
export function createPipe(): { readonly readFd: number; readonly writeFd: number } {
  const fds = new Int32Array(2);
  if (pipe2(fds, O_CLOEXEC) !== 0) {
    const error = new Error(`pipe2: errno ${koffi.errno()}`);
    throw Object.assign(error, { code: 'EMFILE' });
  }
  return { readFd: fds[0] ?? -1, writeFd: fds[1] ?? -1 };
}
