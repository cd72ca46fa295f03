// The streams of an exec or attach over a WebSocket: channels 0 to 4 are stdin, stdout, stderr, error
// and resize (cri-streaming, remotecommand; KEP-4006 for v5).

import type { WebSocket } from 'ws';
import type { CommandAsk } from '../ask.ts';
import type { ClientSocket } from '../client-socket.ts';
import type { CommandClient } from '../client-stream.ts';
import { type ChannelCodec, createChannels } from './channels.ts';

interface Protocol {
  readonly codec: ChannelCodec;
  readonly statusForm: 'json' | 'text';
  readonly closesChannels: boolean;
}

function protocol(codec: ChannelCodec, statusForm: 'json' | 'text', v5 = ''): Protocol {
  return { codec, statusForm, closesChannels: v5 !== '' };
}

/** By subprotocol; the empty one is a client that names none. */
export const WEBSOCKET_COMMAND_PROTOCOLS: ReadonlyMap<string, Protocol> = new Map([
  ['v5.channel.k8s.io', protocol('binary', 'json', 'v5')],
  ['v4.channel.k8s.io', protocol('binary', 'json')],
  ['v4.base64.channel.k8s.io', protocol('base64', 'json')],
  ['channel.k8s.io', protocol('binary', 'text')],
  ['base64.channel.k8s.io', protocol('base64', 'text')],
  ['', protocol('binary', 'text')],
]);

const CHANNELS = 5;

/** The client of an upgraded connection; an empty first message tells it that it is there. */
export function webSocketCommandClient(options: {
  readonly ws: WebSocket;
  readonly client: ClientSocket;
  readonly ask: CommandAsk;
  readonly subprotocol: string;
}): CommandClient {
  const { ws, client, ask, subprotocol } = options;
  const { codec, statusForm, closesChannels } =
    WEBSOCKET_COMMAND_PROTOCOLS.get(subprotocol) ?? protocol('binary', 'text');
  const { connection, streams } = createChannels({
    ws,
    client,
    codec,
    closesChannels,
    count: CHANNELS,
  });
  const [stdin, stdout, stderr, error, resize] = streams;
  if (error === undefined) throw new Error('there are five channels');
  for (const [stream, wanted] of [
    [stdin, ask.stdin],
    [stdout, false],
    [stderr, false],
    [error, false],
    [resize, ask.tty],
  ] as const) {
    if (!wanted) stream?.receive({ data: () => undefined, end: () => undefined });
  }
  const first = ask.stdout ? stdout : ask.stderr ? stderr : error;
  first?.write(Buffer.alloc(0));
  return {
    connection,
    protocol: `WebSocket ${subprotocol}`.trim(),
    error,
    statusForm,
    stdin: ask.stdin ? stdin : undefined,
    stdout: ask.stdout ? stdout : undefined,
    stderr: ask.stderr ? stderr : undefined,
    resize: ask.tty ? resize : undefined,
  };
}
