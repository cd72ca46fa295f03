// Forwarded connections over SPDY: each is a pair of streams, `data` and `error`, that share the
// header `requestID` (cri-streaming, portforward). A client opens as many as it likes.

import { Failure } from '@cribus/contracts/failure.ts';
import type { Clock } from '@cribus/host/clock.ts';
import { withJoinedSignal } from '@cribus/host/joined-signals.ts';
import type { ClientConnection, ForwardPair } from '../client-stream.ts';
import { parsePort } from '../ports.ts';
import { type SpdyStream, type SpdyTransport, serveSpdy } from './connection.ts';
import type { Headers } from './header-block.ts';

export const SPDY_FORWARD_PROTOCOL = 'portforward.k8s.io';

interface HalfPair {
  readonly streams: Map<string, SpdyStream>;
  readonly complete: AbortController;
}

/** Serves a connection; calls with every pair that is complete, until the connection is closed. */
export function serveSpdyForwards(options: {
  readonly transport: SpdyTransport;
  readonly clock: Clock;
  readonly creationMs: number;
  readonly onPair: (pair: ForwardPair, connection: ClientConnection) => void;
}): ClientConnection {
  const { transport, clock, creationMs, onPair } = options;
  const halves = new Map<string, HalfPair>();
  const giveUpLater = async (requestId: string, half: HalfPair): Promise<void> => {
    await withJoinedSignal([half.complete.signal, transport.closed], (signal) =>
      clock.sleep(creationMs, signal),
    ).catch(() => undefined);
    halves.delete(requestId);
    if (half.complete.signal.aborted) return;
    const error = half.streams.get('error');
    error?.write(Buffer.from(`request ${requestId}: timed out waiting for its streams`));
    error?.end();
    for (const stream of half.streams.values()) stream.reset();
  };
  const connection = serveSpdy(transport, {
    admits(headers) {
      return portOf(headers) !== undefined && typeOf(headers) !== undefined;
    },
    opened(stream) {
      const type = typeOf(stream.headers) ?? '';
      const requestId = requestIdOf(stream, type);
      const half = halves.get(requestId) ?? newHalf();
      if (half.streams.has(type)) {
        stream.reset();
        return;
      }
      if (!halves.has(requestId)) {
        halves.set(requestId, half);
        void giveUpLater(requestId, half);
      }
      half.streams.set(type, stream);
      const data = half.streams.get('data');
      const error = half.streams.get('error');
      if (data === undefined || error === undefined) return;
      halves.delete(requestId);
      half.complete.abort(new Failure('cancelled', 'both streams are there'));
      error.receive({ data: () => undefined, end: () => undefined });
      onPair({ port: portOf(data.headers) ?? 0, data, error, halfCloses: true }, connection);
    },
  });
  return connection;
}

function newHalf(): HalfPair {
  return { streams: new Map(), complete: new AbortController() };
}

function typeOf(headers: Headers): 'data' | 'error' | undefined {
  const type = headers.get('streamtype');
  return type === 'data' || type === 'error' ? type : undefined;
}

function portOf(headers: Headers): number | undefined {
  return parsePort(headers.get('port') ?? '');
}

/** Old clients send none: they open the error stream first, and the data stream right after it. */
function requestIdOf(stream: SpdyStream, type: string): string {
  const given = stream.headers.get('requestid') ?? '';
  if (given !== '') return given;
  return `stream ${type === 'error' ? stream.id : stream.id - 2}`;
}
