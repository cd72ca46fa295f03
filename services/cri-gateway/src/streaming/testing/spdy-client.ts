// A SPDY/3.1 client for tests, over TCP or in the messages of a WebSocket.

import { request } from 'node:http';
import type { Socket } from 'node:net';
import { WebSocket } from 'ws';
import {
  CONTROL,
  controlFrame,
  createFrameParser,
  dataHeader,
  FLAG_FIN,
  words,
} from '../spdy/frames.ts';
import { createHeaderReader, createHeaderWriter } from '../spdy/header-block.ts';
import { deferred } from './deferred.ts';

/** What the bytes go over. */
export interface Wire {
  write(bytes: Buffer): boolean;
  onData(listener: (chunk: Buffer) => void): void;
  /** The underlying connection: to pause it, to break it. */
  readonly socket: Socket;
  /** The sub-protocol that the server chose. */
  readonly protocol: string;
}

export interface TestStream {
  readonly id: number;
  write(bytes: Buffer | string): boolean;
  end(): void;
  reset(): void;
  /** Instead of keeping what comes, hands it over. */
  onData(listener: (piece: Buffer) => void): void;
  /** All that came, once the server has ended or reset the stream, or is gone. */
  readonly all: Promise<Buffer>;
  /** How it ended: `end`, `reset`, or `gone` with the connection. */
  readonly ended: Promise<'end' | 'reset' | 'gone'>;
}

export interface SpdyTestClient {
  readonly wire: Wire;
  /** Resolves with the reply, rejects when the stream is refused. */
  open(headers: Readonly<Record<string, string>>): Promise<TestStream>;
  ping(id: number): Promise<void>;
  /** Any bytes, to break the rules with. */
  raw(bytes: Buffer): void;
  /** The status of the server's goodbye; undefined when the connection ends without one. */
  readonly goodbye: Promise<number | undefined>;
  readonly closed: Promise<void>;
  destroy(): void;
}

/** The answer to an upgrade that was refused. */
export class UpgradeRefused extends Error {
  readonly status: number;
  constructor(status: number, body: string) {
    super(body);
    this.status = status;
  }
}

/** Upgrades a URL to SPDY/3.1; raises UpgradeRefused. */
export function dialTcpWire(
  url: string,
  protocols: readonly string[],
  extra: Readonly<Record<string, string>> = {},
): Promise<Wire> {
  return new Promise((resolve, reject) => {
    const headers = {
      Connection: 'Upgrade',
      Upgrade: 'SPDY/3.1',
      ...(protocols.length > 0 ? { 'X-Stream-Protocol-Version': [...protocols] } : {}),
      ...extra,
    };
    const asking = request(url, { method: 'POST', headers });
    asking.on('error', reject);
    asking.on('response', (response) => {
      const pieces: Buffer[] = [];
      response.on('data', (piece: Buffer) => pieces.push(piece));
      response.on('end', () => {
        reject(new UpgradeRefused(response.statusCode ?? 0, Buffer.concat(pieces).toString()));
      });
    });
    asking.on('upgrade', (response, socket, head) => {
      socket.on('error', () => socket.destroy());
      if (head.length > 0) socket.unshift(head);
      resolve({
        socket: socket as Socket,
        protocol: String(response.headers['x-stream-protocol-version']),
        write: (bytes) => socket.write(bytes),
        onData: (listener) => socket.on('data', listener),
      });
    });
    asking.end();
  });
}

/** SPDY in the messages of a WebSocket, as kubectl port-forward speaks it. */
export async function dialTunnelWire(url: string): Promise<Wire> {
  const wanted = 'SPDY/3.1+portforward.k8s.io';
  // The library takes no protocol with a slash in it, so it is asked for and taken past it.
  const headers = { 'Sec-WebSocket-Protocol': wanted };
  const ws = new WebSocket(url.replace(/^http/, 'ws'), { headers });
  let protocol = '';
  ws.once('upgrade', (response) => {
    protocol = String(response.headers['sec-websocket-protocol']);
    delete response.headers['sec-websocket-protocol'];
  });
  await new Promise((resolve, reject) => {
    ws.once('open', resolve);
    ws.once('error', reject);
  });
  ws.on('error', () => ws.terminate());
  const { _socket: socket } = ws as unknown as { readonly _socket: Socket };
  return {
    socket,
    protocol,
    write(bytes) {
      ws.send(bytes);
      return !socket.writableNeedDrain;
    },
    onData: (listener) => ws.on('message', (message: Buffer) => listener(message)),
  };
}

interface OpenStream {
  readonly stream: TestStream;
  take(piece: Buffer): void;
  finish(how: 'end' | 'reset' | 'gone'): void;
  replied(): void;
}

/** Speaks SPDY over a wire. */
export function createSpdyTestClient(wire: Wire): SpdyTestClient {
  const streams = new Map<number, OpenStream>();
  const pings = new Map<number, () => void>();
  const writeBlock = createHeaderWriter();
  const readBlock = createHeaderReader();
  const goodbye = deferred<number | undefined>();
  const closed = deferred<void>();
  let nextId = 1;
  const parse = createFrameParser({
    control(type, _flags, payload) {
      const id = payload.readUInt32BE(0);
      if (type === CONTROL.synReply) {
        readBlock(payload.subarray(4));
        streams.get(id)?.replied();
      } else if (type === CONTROL.rstStream) streams.get(id)?.finish('reset');
      else if (type === CONTROL.ping) pings.get(id)?.();
      else if (type === CONTROL.goAway) goodbye.resolve(payload.readUInt32BE(4));
    },
    data(id, piece, fin) {
      if (piece.length > 0) streams.get(id)?.take(piece);
      if (fin) streams.get(id)?.finish('end');
    },
  });
  wire.onData(parse);
  wire.socket.on('close', () => {
    for (const open of streams.values()) open.finish('gone');
    goodbye.resolve(undefined);
    closed.resolve();
  });
  return {
    wire,
    goodbye: goodbye.promise,
    closed: closed.promise,
    raw: (bytes) => wire.write(bytes),
    destroy: () => wire.socket.destroy(),
    ping(id) {
      const { promise, resolve } = deferred<void>();
      pings.set(id, resolve);
      wire.write(controlFrame(CONTROL.ping, 0, words(id)));
      return promise;
    },
    async open(headers) {
      const id = nextId;
      nextId += 2;
      const { promise, resolve, reject } = deferred<void>();
      const open = createOpenStream(wire, id, resolve);
      streams.set(id, open);
      void open.stream.ended.then(() => reject(new Error(`stream ${id} was refused`)));
      const block = writeBlock(new Map(Object.entries(headers)));
      const head = Buffer.concat([words(id, 0), Buffer.of(0, 0)]);
      wire.write(controlFrame(CONTROL.synStream, 0, Buffer.concat([head, block])));
      await promise;
      return open.stream;
    },
  };
}

function createOpenStream(wire: Wire, id: number, replied: () => void): OpenStream {
  const pieces: Buffer[] = [];
  let listener = (piece: Buffer): void => {
    pieces.push(piece);
  };
  const ended = deferred<'end' | 'reset' | 'gone'>();
  return {
    replied,
    take: (piece) => listener(piece),
    finish: ended.resolve,
    stream: {
      id,
      ended: ended.promise,
      all: ended.promise.then(() => Buffer.concat(pieces)),
      onData(given) {
        listener = given;
      },
      write(bytes) {
        const data = Buffer.from(bytes);
        return wire.write(Buffer.concat([dataHeader(id, 0, data.length), data]));
      },
      end: () => void wire.write(dataHeader(id, FLAG_FIN, 0)),
      reset: () => void wire.write(controlFrame(CONTROL.rstStream, 0, words(id, 5))),
    },
  };
}

/** Dials a URL and speaks SPDY straight over TCP. */
export async function dialSpdy(url: string, protocols: readonly string[]): Promise<SpdyTestClient> {
  return createSpdyTestClient(await dialTcpWire(url, protocols));
}
