// What the kernel knows of a connected socket and Node has no call for, and sockets that were left.

import { existsSync, readFileSync, readlinkSync } from 'node:fs';
import { unlink } from 'node:fs/promises';
import { connect, type Socket } from 'node:net';
import { constants } from 'node:os';
import { isErrno } from './errno.ts';
import { libc } from './libc.ts';

/** poll(2), asm-generic/poll.h. */
const POLLERR = 0x0008;
const POLLHUP = 0x0010;
const POLLNVAL = 0x0020;
const POLLRDHUP = 0x2000;
/** struct pollfd: int fd, short events, short revents. */
const POLLFD_BYTES = 8;
/** From <asm-generic/socket.h>. */
const SOL_SOCKET = 1;
const SO_ERROR = 4;

/**
 * Whether the other end has closed its side, also while bytes of it wait to be read: a socket that
 * is paused in Node never says so. False for a socket without a descriptor.
 */
export function hasPeerHungUp(socket: Socket): boolean {
  const fd = descriptorOf(socket);
  if (fd < 0) return false;
  const entry = Buffer.alloc(POLLFD_BYTES);
  entry.writeInt32LE(fd, 0);
  entry.writeInt16LE(POLLRDHUP, 4);
  if (libc().poll(entry, 1, 0) <= 0) return false;
  return (entry.readInt16LE(6) & (POLLRDHUP | POLLHUP | POLLERR | POLLNVAL)) !== 0;
}

/** Where a descriptor of a listening unix socket is bound (proc(5), /proc/net/unix); undefined for others. */
export function boundPath(fd: number): string | undefined {
  const inode = /^socket:\[(\d+)\]$/.exec(readlinkSync(`/proc/self/fd/${fd}`))?.[1];
  if (inode === undefined) return undefined;
  for (const line of readFileSync('/proc/self/net/unix', 'utf8').split('\n')) {
    const found = /^(?:\S+\s+){6}(\d+) (\/.*)$/.exec(line);
    if (found?.[1] === inode) return found[2];
  }
  return undefined;
}

/**
 * Whether the other end has reset the connection before it ended its side, to be asked at the 'end' of a
 * socket: libuv takes a hang-up after a short read for the end, and never asks for the error, which the
 * kernel tells once. A reset that follows a proper end is EPIPE there, and none here.
 */
export function wasReset(socket: Socket): boolean {
  const fd = descriptorOf(socket);
  if (fd < 0) return false;
  const error = Buffer.alloc(4);
  const length = Uint32Array.of(error.length);
  if (libc().getsockopt(fd, SOL_SOCKET, SO_ERROR, error, length) !== 0) return false;
  return error.readInt32LE(0) === constants.errno.ECONNRESET;
}

function descriptorOf(socket: Socket): number {
  const { _handle: handle } = socket as unknown as { readonly _handle?: { readonly fd?: number } };
  return handle?.fd ?? -1;
}

/**
 * Removes a unix socket that nobody listens on: left over from a process that was killed. False where
 * somebody does; true also where there is none.
 */
export async function removeLeftSocket(path: string): Promise<boolean> {
  if (!existsSync(path)) return true;
  if (await isListenedOn(path)) return false;
  try {
    await unlink(path);
  } catch (error) {
    if (!isErrno(error, 'ENOENT')) throw error;
  }
  return true;
}

/** The kernel answers at once: it takes the connection, or it refuses it. */
function isListenedOn(path: string): Promise<boolean> {
  return new Promise((resolve) => {
    const probe = connect(path);
    probe.once('connect', () => {
      probe.destroy();
      resolve(true);
    });
    probe.once('error', () => resolve(false));
  });
}
