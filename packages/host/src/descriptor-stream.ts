// A stream on a descriptor that Node's own streams refuse: a terminal's master, a socket of packets.

import { closeSync, readSync } from 'node:fs';
import { Socket } from 'node:net';
import { isErrno } from './errno.ts';
import { checked, libc } from './libc.ts';

/** From <sys/socket.h> and <fcntl.h>; the same on x86-64 and arm64. */
const AF_UNIX = 1;
const SOCK_STREAM_CLOEXEC_NONBLOCK = 0o2004001;
const O_CLOEXEC = 0o2000000;
const REST_READ_BYTES = 16 * 1024;

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

/**
 * What a descriptor that has been hung up still holds, one buffer per read(2): libuv takes a hang-up for
 * the end after any read that did not fill its buffer of 64 KiB, which a terminal and a socket of packets
 * never do. A socket whose other side closed before it had read all of ours says so once, before what
 * that one had sent.
 */
export function readRest(fd: number): Buffer[] {
  const chunks: Buffer[] = [];
  for (let wasReset = false; ; ) {
    const chunk = Buffer.allocUnsafe(REST_READ_BYTES);
    try {
      const count = readSync(fd, chunk);
      if (count === 0) return chunks;
      chunks.push(chunk.subarray(0, count));
    } catch (error) {
      // EIO is what a terminal's master says at its end.
      if (isErrno(error, 'EIO', 'EAGAIN')) return chunks;
      if (!isErrno(error, 'ECONNRESET')) throw error;
      if (wasReset) return chunks;
      wasReset = true;
    }
  }
}
