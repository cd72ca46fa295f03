// A stream on a descriptor that Node's own streams refuse: a terminal's master, a socket of packets.

import { closeSync } from 'node:fs';
import { Socket } from 'node:net';
import { checked, libc } from './libc.ts';

/** From <sys/socket.h> and <fcntl.h>; the same on x86-64 and arm64. */
const AF_UNIX = 1;
const SOCK_STREAM_CLOEXEC_NONBLOCK = 0o2004001;
const O_CLOEXEC = 0o2000000;

/**
 * A duplex that owns the descriptor, which must not block. What was read by one read(2), up to
 * 64 KiB, is one 'data'. It is ended by `destroy`, not by `end`, which asks for a shutdown(2). Throws
 * with an errno code; the descriptor is closed then.
 */
export function streamOfDescriptor(fd: number): Socket {
  try {
    const seat = checked(
      libc().socket(AF_UNIX, SOCK_STREAM_CLOEXEC_NONBLOCK, 0),
      'socket',
      'for a stream',
    );
    // Node looks at a descriptor's type only when the stream is made, and first polls it on the next
    // turn of the event loop: in between another one takes its seat.
    const stream = new Socket({ fd: seat, readable: true, writable: true, allowHalfOpen: true });
    const result = libc().dup3(fd, seat, O_CLOEXEC);
    if (result < 0) {
      const errno = libc().errno();
      stream.destroy();
      checked(-errno, 'dup3', `${fd}`);
    }
    return stream;
  } finally {
    closeSync(fd);
  }
}
