// A connection to a unix socket of packets (SOCK_SEQPACKET, unix(7)), which Node's net can't open.

import { closeSync, constants, openSync } from 'node:fs';
import type { Socket } from 'node:net';
import { basename, dirname } from 'node:path';
import { unixAddress } from './descriptor-inbox.ts';
import { readRest, streamOfDescriptor } from './descriptor-stream.ts';
import { checked, libc } from './libc.ts';

export interface PacketSocket {
  /** Each 'data' is one packet. */
  readonly stream: Socket;
  /** One packet; false when the sender should wait for `onFree`. */
  send(packet: Uint8Array): boolean;
  /** After what has been sent, the other side is told that nothing more comes. */
  end(): void;
  /**
   * Once the stream has ended or broken: the packets that it did not pass on. It breaks where the other
   * side closed without having read all of ours, whatever that one had sent before.
   */
  readRest(): Buffer[];
  close(): void;
}

/** From <sys/socket.h> and <fcntl.h>; the same on x86-64 and arm64. */
const AF_UNIX = 1;
const SOCK_SEQPACKET_CLOEXEC_NONBLOCK = 0o2004005;
const F_DUPFD_CLOEXEC = 1030;

/**
 * Connects at once, or throws with an errno code: ENOENT, ECONNREFUSED; EAGAIN when too many others
 * wait to be accepted. `onFree` is called when packets may be sent again.
 */
export function connectPackets(path: string, onFree: () => void): PacketSocket {
  const directory = openSync(dirname(path), constants.O_RDONLY | constants.O_DIRECTORY);
  let fd = -1;
  let rest = -1;
  try {
    fd = checked(libc().socket(AF_UNIX, SOCK_SEQPACKET_CLOEXEC_NONBLOCK, 0), 'socket', path);
    // The path itself may be longer than an address holds.
    const address = unixAddress(`/proc/self/fd/${directory}/${basename(path)}`);
    checked(libc().connect(fd, address, address.length), 'connect', `'${path}'`);
    rest = checked(libc().fcntl(fd, F_DUPFD_CLOEXEC, 'int', 0), 'fcntl', 'F_DUPFD_CLOEXEC');
  } catch (error) {
    if (fd >= 0) closeSync(fd);
    throw error;
  } finally {
    closeSync(directory);
  }
  const stream = streamOfDescriptor(fd);
  const closeRest = () => {
    if (rest >= 0) closeSync(rest);
    rest = -1;
  };
  return {
    stream,
    ...sender(stream, onFree),
    readRest: () => (rest < 0 ? [] : [...heldPackets(stream), ...readRest(rest)]),
    close: () => {
      stream.destroy();
      closeRest();
    },
  };
}

/** What a stream that broke had read: while it flows a read takes one packet, and passes none on. */
function heldPackets(stream: Socket): Buffer[] {
  const packets: Buffer[] = [];
  stream.resume();
  for (let packet = stream.read(); packet !== null; packet = stream.read()) {
    packets.push(packet as Buffer);
  }
  return packets;
}

/** One write at a time: what a stream has in its queue it writes together, as one packet. */
function sender(stream: Socket, onFree: () => void): Pick<PacketSocket, 'send' | 'end'> {
  const queue: Uint8Array[] = [];
  let busy = false;
  let ending = false;
  const next = () => {
    const packet = stream.destroyed ? undefined : queue.shift();
    busy = packet !== undefined;
    if (packet !== undefined) stream.write(packet, next);
    else if (ending) stream.end();
    else onFree();
  };
  return {
    send: (packet) => {
      if (ending) return true;
      queue.push(packet);
      if (!busy) next();
      return !busy;
    },
    end: () => {
      ending = true;
      if (!busy) next();
    },
  };
}
