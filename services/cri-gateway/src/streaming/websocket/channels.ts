// Streams as Kubernetes puts them into WebSocket messages: the first byte of each is the number of
// its channel; in the base64 variants a digit, and the rest is base64 (streaming, wsstream).

import type { WebSocket } from 'ws';
import type { ClientSocket } from '../client-socket.ts';
import type { ClientConnection, ClientStream } from '../client-stream.ts';
import { createInbox, createThrottle, type Inbox } from '../inbox.ts';

export type ChannelCodec = 'binary' | 'base64';

/** From v5 on: the next byte names a channel on which nothing more comes. */
const CLOSE_CHANNEL = 255;
const DIGIT_ZERO = 0x30;
/** RFC 6455, section 7.4.1. */
const NORMAL_CLOSURE = 1000;
const PROTOCOL_ERROR = 1002;

export interface Channels {
  readonly connection: ClientConnection;
  readonly streams: readonly ClientStream[];
}

/** The channels 0 to `count` - 1 of a connection. Messages for others are ignored. */
export function createChannels(options: {
  readonly ws: WebSocket;
  readonly client: ClientSocket;
  readonly codec: ChannelCodec;
  readonly count: number;
  readonly closesChannels: boolean;
}): Channels {
  const { ws, client, codec, count, closesChannels } = options;
  const throttle = createThrottle(client);
  const inboxes: readonly Inbox[] = Array.from({ length: count }, () => createInbox(throttle));
  let closing = false;
  const close = (code: number): void => {
    if (closing) return;
    closing = true;
    for (const inbox of inboxes) inbox.discard();
    ws.close(code);
    client.resume();
    client.linger();
  };
  ws.on('message', (message: Buffer) => {
    client.touch();
    const [first] = message;
    if (closing || first === undefined) return;
    if (closesChannels && first === CLOSE_CHANNEL) {
      const inbox = inboxes[message[1] ?? count];
      if (message.length === 2 && inbox !== undefined) inbox.finish();
      else close(PROTOCOL_ERROR);
      return;
    }
    const inbox = inboxes[codec === 'binary' ? first : first - DIGIT_ZERO];
    const bytes = message.subarray(1);
    if (bytes.length === 0) return;
    inbox?.push(codec === 'binary' ? bytes : Buffer.from(bytes.toString('latin1'), 'base64'));
  });
  client.closed.addEventListener('abort', () => {
    for (const inbox of inboxes) inbox.finish();
  });
  const send = (channel: number, chunk: Buffer): boolean => {
    if (closing || ws.readyState !== ws.OPEN) return true;
    client.touch();
    ws.send(encode(codec, channel, chunk));
    return !client.isFull();
  };
  return {
    connection: {
      closed: client.closed,
      onDrain: client.onDrain,
      // Messages are copies.
      isHolding: () => false,
      close: () => close(NORMAL_CLOSURE),
    },
    streams: inboxes.map((inbox, channel) => ({
      write: (chunk) => send(channel, chunk),
      // A server has no message for the end of one channel; the close of the connection ends all.
      end: () => undefined,
      reset: () => inbox.discard(),
      receive: (receiver) => inbox.receive(receiver),
      pause: () => inbox.pause(),
      resume: () => inbox.resume(),
    })),
  };
}

/** A Buffer is sent as a binary message, a text as a text message. */
function encode(codec: ChannelCodec, channel: number, chunk: Buffer): Buffer | string {
  return codec === 'binary'
    ? Buffer.concat([Buffer.of(channel), chunk])
    : String.fromCharCode(DIGIT_ZERO + channel) + chunk.toString('base64');
}
