// The streams of an exec or attach over SPDY: the client opens one for each that it asked for, and
// says which by the header `streamType` (cri-streaming, remotecommand).

import { Failure } from '@cribus/contracts/failure.ts';
import type { Clock } from '@cribus/host/clock.ts';
import { withJoinedSignal } from '@cribus/host/joined-signals.ts';
import type { CommandAsk } from '../ask.ts';
import type { ClientStream, CommandClient } from '../client-stream.ts';
import { type SpdyTransport, serveSpdy } from './connection.ts';

/** In the order in which the server would choose, what each version has. */
export const SPDY_COMMAND_PROTOCOLS = {
  'v4.channel.k8s.io': { resizes: true, statusForm: 'json' },
  'v3.channel.k8s.io': { resizes: true, statusForm: 'text' },
  'v2.channel.k8s.io': { resizes: false, statusForm: 'text' },
  'channel.k8s.io': { resizes: false, statusForm: 'text' },
} as const;
export type SpdyCommandProtocol = keyof typeof SPDY_COMMAND_PROTOCOLS;

const TYPES = ['error', 'stdin', 'stdout', 'stderr', 'resize'] as const;
type StreamType = (typeof TYPES)[number];

/** Waits for the streams of an ask. Raises timeout, or cancelled when the client goes before. */
export async function spdyCommandClient(options: {
  readonly transport: SpdyTransport;
  readonly protocol: SpdyCommandProtocol;
  readonly ask: CommandAsk;
  readonly clock: Clock;
  readonly creationMs: number;
}): Promise<CommandClient> {
  const { transport, protocol, ask, clock, creationMs } = options;
  const { resizes, statusForm } = SPDY_COMMAND_PROTOCOLS[protocol];
  const wanted: Readonly<Record<StreamType, boolean>> = {
    error: true,
    stdin: ask.stdin,
    stdout: ask.stdout,
    stderr: ask.stderr,
    resize: ask.tty && resizes,
  };
  const streams = new Map<StreamType, ClientStream>();
  const complete = new AbortController();
  const connection = serveSpdy(transport, {
    admits(headers) {
      const type = TYPES.find((one) => one === headers.get('streamtype'));
      return type !== undefined && !streams.has(type);
    },
    opened(stream) {
      const type = TYPES.find((one) => one === stream.headers.get('streamtype'));
      if (type === undefined) return;
      streams.set(type, stream);
      // One that was not asked for stays silent.
      if (!wanted[type]) stream.receive({ data: () => undefined, end: () => undefined });
      if (TYPES.every((one) => !wanted[one] || streams.has(one))) complete.abort();
    },
  });
  await withJoinedSignal([complete.signal, connection.closed], (signal) =>
    clock.sleep(creationMs, signal),
  ).catch(() => undefined);
  const error = streams.get('error');
  if (!complete.signal.aborted || error === undefined) {
    connection.close();
    if (connection.closed.aborted) throw connection.closed.reason;
    throw new Failure('timeout', 'the client did not open its streams in time');
  }
  const asked = (type: StreamType) => (wanted[type] ? streams.get(type) : undefined);
  return {
    connection,
    protocol: `SPDY/3.1 ${protocol}`,
    error,
    statusForm,
    stdin: asked('stdin'),
    stdout: asked('stdout'),
    stderr: asked('stderr'),
    resize: asked('resize'),
  };
}
