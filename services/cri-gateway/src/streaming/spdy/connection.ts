// The server's side of a SPDY/3.1 connection as Kubernetes' clients use it: they open streams, we
// reply. Neither side sends WINDOW_UPDATE: the send window has no limit, and TCP holds a fast one up.

import type { ClientConnection, ClientStream } from '../client-stream.ts';
import { createInbox, createThrottle, type Inbox, type Throttle } from '../inbox.ts';
import {
  CONTROL,
  controlFrame,
  createFrameParser,
  dataHeader,
  FLAG_FIN,
  GO_AWAY,
  RESET,
  SpdyError,
  streamIdAt,
  wordAt,
  words,
} from './frames.ts';
import { createHeaderReader, createHeaderWriter, type Headers } from './header-block.ts';

/** Streams that are open at once: a port-forward takes two for each connection. */
const STREAMS_MAX = 2_000;
/** Data frames have a length of 24 bits; ours stay far below. */
const DATA_BYTES_MAX = 1024 * 1024;

/** What carries the bytes: a TCP connection, or the messages of a WebSocket. */
export interface SpdyTransport extends ClientConnection {
  /** Called with everything that arrives. */
  onData(listener: (chunk: Buffer) => void): void;
  /** False when the socket is full. */
  write(parts: readonly Buffer[]): boolean;
  pause(): void;
  resume(): void;
}

export interface SpdyStream extends ClientStream {
  readonly id: number;
  readonly headers: Headers;
}

export interface SpdyHandlers {
  /** Whether a stream with these headers is wanted; if not it is refused. */
  admits(headers: Headers): boolean;
  /** It has been replied to. */
  opened(stream: SpdyStream): void;
}

interface Open {
  readonly inbox: Inbox;
  /** The client has closed its half, or we ours. */
  theirsOver: boolean;
  oursOver: boolean;
}

interface State {
  readonly transport: SpdyTransport;
  readonly handlers: SpdyHandlers;
  readonly throttle: Throttle;
  readonly streams: Map<number, Open>;
  readonly readBlock: (block: Buffer) => Headers;
  readonly writeBlock: (headers: Headers) => Buffer;
  lastStreamId: number;
  /** We said goodbye, or the client did: no stream is opened any more. */
  goneAway: boolean;
  closing: boolean;
}

/** Serves a connection until it is closed; a client that breaks the protocol is cut off. */
export function serveSpdy(transport: SpdyTransport, handlers: SpdyHandlers): ClientConnection {
  const state: State = {
    transport,
    handlers,
    throttle: createThrottle(transport),
    streams: new Map(),
    readBlock: createHeaderReader(),
    writeBlock: createHeaderWriter(),
    lastStreamId: 0,
    goneAway: false,
    closing: false,
  };
  const close = (reason: number): void => {
    if (state.closing) return;
    state.closing = true;
    state.goneAway = true;
    for (const { inbox } of state.streams.values()) inbox.discard();
    transport.write([controlFrame(CONTROL.goAway, 0, words(state.lastStreamId, reason))]);
    transport.close();
  };
  const parse = createFrameParser({
    control: (type, flags, payload) => takeControl(state, { type, flags, payload }),
    data: (streamId, piece, fin) => takeData(state, { streamId, piece, fin }),
  });
  transport.onData((chunk) => {
    if (state.closing) return;
    try {
      parse(chunk);
    } catch (error) {
      if (!(error instanceof SpdyError)) throw error;
      close(GO_AWAY.protocolError);
    }
  });
  transport.closed.addEventListener('abort', () => {
    for (const open of state.streams.values()) open.inbox.finish();
    state.streams.clear();
  });
  return {
    closed: transport.closed,
    onDrain: (listener) => transport.onDrain(listener),
    isHolding: () => transport.isHolding(),
    close: () => close(GO_AWAY.ok),
  };
}

function takeControl(
  state: State,
  { type, flags, payload }: { type: number; flags: number; payload: Buffer },
): void {
  switch (type) {
    case CONTROL.synStream:
      takeSynStream(state, flags, payload);
      return;
    case CONTROL.rstStream: {
      const id = streamIdAt(payload, 0);
      const open = state.streams.get(id);
      // First, so that nothing is written any more.
      state.streams.delete(id);
      open?.inbox.reset();
      return;
    }
    case CONTROL.ping:
      // Ours would be even; we send none.
      if (wordAt(payload, 0) % 2 === 1) {
        state.transport.write([controlFrame(CONTROL.ping, 0, payload.subarray(0, 4))]);
      }
      return;
    case CONTROL.goAway:
      state.goneAway = true;
      return;
    case CONTROL.headers:
      // Read in any case: the blocks of a connection are one compressed stream.
      state.readBlock(payload.subarray(4));
      if ((flags & FLAG_FIN) !== 0) theirsOver(state, streamIdAt(payload, 0));
      return;
    case CONTROL.synReply:
      throw new SpdyError('a reply to a stream that was not opened');
    default:
      // Settings and windows change nothing here, and an unknown frame is to be ignored.
      return;
  }
}

function takeSynStream(state: State, flags: number, payload: Buffer): void {
  const id = streamIdAt(payload, 0);
  const headers = state.readBlock(payload.subarray(10));
  const reset = (status: number): void => {
    state.transport.write([controlFrame(CONTROL.rstStream, 0, words(id, status))]);
  };
  if (state.goneAway) return;
  if (id % 2 === 0 || id <= state.lastStreamId) {
    reset(RESET.protocolError);
    return;
  }
  state.lastStreamId = id;
  if (state.streams.size >= STREAMS_MAX || !state.handlers.admits(headers)) {
    reset(RESET.refused);
    return;
  }
  const open = { inbox: createInbox(state.throttle), theirsOver: false, oursOver: false };
  state.streams.set(id, open);
  const reply = Buffer.concat([words(id), state.writeBlock(new Map())]);
  state.transport.write([controlFrame(CONTROL.synReply, 0, reply)]);
  if ((flags & FLAG_FIN) !== 0) theirsOver(state, id);
  state.handlers.opened(createStream(state, { id, headers, open }));
}

function takeData(
  state: State,
  { streamId, piece, fin }: { streamId: number; piece: Buffer; fin: boolean },
): void {
  const open = state.streams.get(streamId);
  if (open !== undefined && !open.theirsOver) {
    if (piece.length > 0) open.inbox.push(piece);
    if (fin) theirsOver(state, streamId);
  } else if (open === undefined && streamId > state.lastStreamId) {
    const status = words(streamId, RESET.invalidStream);
    state.transport.write([controlFrame(CONTROL.rstStream, 0, status)]);
  }
}

function theirsOver(state: State, id: number): void {
  const open = state.streams.get(id);
  if (open === undefined) return;
  open.theirsOver = true;
  open.inbox.finish();
  if (open.oursOver) state.streams.delete(id);
}

function createStream(
  state: State,
  { id, headers, open }: { readonly id: number; readonly headers: Headers; readonly open: Open },
): SpdyStream {
  const isWritable = (): boolean => !open.oursOver && !state.closing && state.streams.has(id);
  return {
    id,
    headers,
    write(chunk) {
      let roomy = true;
      for (let from = 0; from < chunk.length && isWritable(); from += DATA_BYTES_MAX) {
        const piece = chunk.subarray(from, from + DATA_BYTES_MAX);
        roomy = state.transport.write([dataHeader(id, 0, piece.length), piece]);
      }
      return roomy;
    },
    end() {
      if (!isWritable()) return;
      state.transport.write([dataHeader(id, FLAG_FIN, 0)]);
      open.oursOver = true;
      if (open.theirsOver) state.streams.delete(id);
    },
    reset() {
      open.inbox.discard();
      if (!state.streams.delete(id) || state.closing) return;
      state.transport.write([controlFrame(CONTROL.rstStream, 0, words(id, RESET.cancel))]);
    },
    receive: (receiver) => open.inbox.receive(receiver),
    pause: () => open.inbox.pause(),
    resume: () => open.inbox.resume(),
  };
}
