// SPDY straight over a TCP connection.

import type { Socket } from 'node:net';
import type { ClientSocket } from '../client-socket.ts';
import type { SpdyTransport } from './connection.ts';
import { CONTROL, controlFrame, words } from './frames.ts';

/** Odd, so the client's: it ignores the answer to a ping that it never sent (section 2.6.5). */
const UNSENT_PING = 0xffffffff;

/** Sends a frame that a client ignores; it must not answer, as its way may be blocked. */
export function probeSpdy(socket: Socket): void {
  socket.write(controlFrame(CONTROL.ping, 0, words(UNSENT_PING)));
}

/** The transport of an upgraded connection. */
export function tcpTransport(socket: Socket, client: ClientSocket): SpdyTransport {
  // These clients never close one direction of the connection alone: its end is their leaving.
  socket.on('end', () => socket.destroy());
  return {
    closed: client.closed,
    onDrain: client.onDrain,
    isHolding: client.isHolding,
    onData(listener) {
      socket.on('data', (chunk: Buffer) => {
        client.touch();
        listener(chunk);
      });
    },
    write(parts) {
      if (socket.destroyed || socket.writableEnded) return true;
      client.touch();
      socket.cork();
      for (const part of parts) socket.write(part);
      socket.uncork();
      return !client.isFull();
    },
    pause: client.pause,
    resume: client.resume,
    close() {
      socket.end();
      // Unread input would make the kernel reset the connection and lose what is still on its way.
      client.resume();
      client.linger();
    },
  };
}
