// Forwarded ports over a WebSocket: either SPDY inside of its messages, or two channels for each port
// that was asked for, one of data and one of errors (cri-streaming, portforward).

import type { WebSocket } from 'ws';
import type { ClientSocket } from '../client-socket.ts';
import type { ClientConnection, ForwardPair } from '../client-stream.ts';
import { parsePort } from '../ports.ts';
import type { SpdyTransport } from '../spdy/connection.ts';
import { type ChannelCodec, createChannels } from './channels.ts';

/** KEP-4006: SPDY frames as the payloads of binary messages. */
export const TUNNEL_PROTOCOL = 'SPDY/3.1+portforward.k8s.io';
/** By subprotocol; the empty one is a client that names none. */
export const WEBSOCKET_FORWARD_PROTOCOLS: ReadonlyMap<string, ChannelCodec | 'spdy'> = new Map([
  [TUNNEL_PROTOCOL, 'spdy'],
  ['v4.channel.k8s.io', 'binary'],
  ['v4.base64.channel.k8s.io', 'base64'],
  ['portforward.k8s.io', 'binary'],
  ['', 'binary'],
]);

/** Two channels each, with numbers of one byte, of which 255 is taken. */
export const FORWARD_PORTS_MAX = 127;
/** RFC 6455, section 7.4.1. */
const NORMAL_CLOSURE = 1000;

/** The pairs of channels of these ports; each channel begins with its port, little endian. */
export function webSocketForwards(options: {
  readonly ws: WebSocket;
  readonly client: ClientSocket;
  readonly codec: ChannelCodec;
  readonly ports: readonly number[];
}): { readonly connection: ClientConnection; readonly pairs: readonly ForwardPair[] } {
  const { ws, client, codec, ports } = options;
  const { connection, streams } = createChannels({
    ws,
    client,
    codec,
    count: ports.length * 2,
    closesChannels: false,
  });
  const pairs = ports.flatMap((port, index) => {
    const data = streams[index * 2];
    const error = streams[index * 2 + 1];
    if (data === undefined || error === undefined) return [];
    error.receive({ data: () => undefined, end: () => undefined });
    const announced = Buffer.alloc(2);
    announced.writeUInt16LE(port);
    data.write(announced);
    error.write(announced);
    return [{ port, data, error, halfCloses: false }];
  });
  return { connection, pairs };
}

/** The ports of a request's query, `port=1,2&port=3`; undefined where one is none, or none is there. */
export function portsOfQuery(url: string): number[] | undefined {
  const query = new URLSearchParams(url.slice(url.indexOf('?') + 1));
  const ports = query.getAll('port').flatMap((list) => list.split(',').map(parsePort));
  if (ports.length === 0 || ports.length > FORWARD_PORTS_MAX) return undefined;
  return ports.every((port) => port !== undefined) ? ports : undefined;
}

/** A WebSocket whose messages carry the bytes of a SPDY connection. */
export function tunnelTransport(ws: WebSocket, client: ClientSocket): SpdyTransport {
  return {
    closed: client.closed,
    onDrain: client.onDrain,
    // Messages are copies.
    isHolding: () => false,
    onData(listener) {
      ws.on('message', (message: Buffer) => {
        client.touch();
        listener(message);
      });
    },
    write(parts) {
      if (ws.readyState !== ws.OPEN) return true;
      client.touch();
      ws.send(Buffer.concat(parts));
      return !client.isFull();
    },
    pause: client.pause,
    resume: client.resume,
    close() {
      ws.close(NORMAL_CLOSURE);
      client.resume();
      client.linger();
    },
  };
}
