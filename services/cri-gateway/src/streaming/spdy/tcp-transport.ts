// SPDY straight over a TCP connection.

import type { Socket } from 'node:net';
import type { ClientSocket } from '../client-socket.ts';
import type { SpdyTransport } from './connection.ts';

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
