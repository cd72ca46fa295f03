// A unix socket that takes one descriptor from another process (SCM_RIGHTS, unix(7)): how an OCI engine
// hands a terminal over (runc, docs/terminals.md).

import { closeSync, rmSync } from 'node:fs';
import { systemError } from './errno.ts';
import { checked, libc } from './libc.ts';

export interface DescriptorInbox {
  /**
   * The descriptor that came, which is the caller's to close; undefined when nobody has sent one.
   * Never waits: to be asked once the sender has ended.
   */
  take(): number | undefined;
  /** Closes and removes the socket. */
  close(): void;
}

/** From <sys/socket.h>; the same on x86-64 and arm64. */
const AF_UNIX = 1;
const SOCK_STREAM_CLOEXEC_NONBLOCK = 0o2004001;
const SOCK_CLOEXEC_NONBLOCK = 0o2004000;
const SOL_SOCKET = 1;
const SCM_RIGHTS = 1;
const MSG_CMSG_CLOEXEC = 0x40000000;
/** sockaddr_un: two bytes of family, then the path with its NUL. */
const SUN_PATH_BYTES = 108;
/** struct msghdr, iovec and cmsghdr of 64-bit Linux. */
const MSGHDR_BYTES = 56;
const IOVEC_BYTES = 16;
const CMSGHDR_BYTES = 16;
/** Engines send a word, as the path of the slave, along with the descriptor. */
const TEXT_BYTES = 256;
const CONTROL_BYTES = CMSGHDR_BYTES + 8;

/** A sockaddr_un. Throws ENAMETOOLONG for a path that does not fit. */
export function unixAddress(path: string): Buffer {
  const bytes = Buffer.from(path);
  if (bytes.length >= SUN_PATH_BYTES) throw systemError('bind', 'ENAMETOOLONG', `'${path}'`);
  const address = Buffer.alloc(2 + SUN_PATH_BYTES);
  address.writeUInt16LE(AF_UNIX, 0);
  address.set(bytes, 2);
  return address;
}

/** Listens at the path. Throws with an errno code. */
export function openDescriptorInbox(path: string): DescriptorInbox {
  const address = unixAddress(path);
  const fd = libc().socket(AF_UNIX, SOCK_STREAM_CLOEXEC_NONBLOCK, 0);
  checked(fd, 'socket', `for '${path}'`);
  let open = true;
  const close = () => {
    if (!open) return;
    open = false;
    closeSync(fd);
    rmSync(path, { force: true });
  };
  try {
    checked(libc().bind(fd, address, address.length), 'bind', `'${path}'`);
    checked(libc().listen(fd, 1), 'listen', `'${path}'`);
  } catch (error) {
    close();
    throw error;
  }
  return { take: () => take(fd), close };
}

function take(fd: number): number | undefined {
  const connection = libc().accept4(fd, null, null, SOCK_CLOEXEC_NONBLOCK);
  if (connection < 0) return undefined;
  try {
    return receive(connection);
  } finally {
    closeSync(connection);
  }
}

function receive(connection: number): number | undefined {
  const text = Buffer.alloc(TEXT_BYTES);
  const control = Buffer.alloc(CONTROL_BYTES);
  const iovec = Buffer.alloc(IOVEC_BYTES);
  iovec.writeBigUInt64LE(libc().address(text), 0);
  iovec.writeBigUInt64LE(BigInt(TEXT_BYTES), 8);
  const message = Buffer.alloc(MSGHDR_BYTES);
  message.writeBigUInt64LE(libc().address(iovec), 16);
  message.writeBigUInt64LE(1n, 24);
  message.writeBigUInt64LE(libc().address(control), 32);
  message.writeBigUInt64LE(BigInt(CONTROL_BYTES), 40);
  if (libc().recvmsg(connection, message, MSG_CMSG_CLOEXEC) <= 0) return undefined;
  const received = Number(message.readBigUInt64LE(40));
  const rights = control.readInt32LE(8) === SOL_SOCKET && control.readInt32LE(12) === SCM_RIGHTS;
  if (received < CMSGHDR_BYTES + 4 || !rights) return undefined;
  return control.readInt32LE(CMSGHDR_BYTES);
}
