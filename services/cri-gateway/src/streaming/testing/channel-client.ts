// A WebSocket client of Kubernetes' channel protocols, for tests.

import type { Socket } from 'node:net';
import { WebSocket } from 'ws';
import { deferred } from './deferred.ts';
import { UpgradeRefused } from './spdy-client.ts';

export interface ChannelTestClient {
  readonly protocol: string;
  readonly socket: Socket;
  send(channel: number, bytes: Buffer | string): boolean;
  /** v5: nothing more comes on this channel. */
  closeChannel(channel: number): void;
  /** Any message, to break the rules with. */
  raw(message: Buffer | string): void;
  /** What came on a channel so far; with base64 decoded. */
  received(channel: number): Buffer;
  /** Instead of keeping what comes on a channel, hands it over. */
  onData(channel: number, listener: (piece: Buffer) => void): void;
  /** Resolves once a channel has at least so many bytes. */
  until(channel: number, bytes: number): Promise<Buffer>;
  /** The code with which the connection was closed. */
  readonly closed: Promise<number>;
  destroy(): void;
}

/** Upgrades a URL to a WebSocket; raises UpgradeRefused. */
export async function dialChannels(
  url: string,
  protocols: readonly string[],
): Promise<ChannelTestClient> {
  const ws = new WebSocket(url.replace(/^http/, 'ws'), [...protocols]);
  const closed = deferred<number>();
  const kept = new Map<number, Buffer[]>();
  const listeners = new Map<number, (piece: Buffer) => void>();
  const waiting = new Set<() => void>();
  ws.on('close', (code) => {
    closed.resolve(code);
    for (const check of waiting) check();
  });
  ws.on('message', (message: Buffer) => {
    const text = ws.protocol.includes('base64');
    const channel = (message[0] ?? 0) - (text ? 0x30 : 0);
    const body = message.subarray(1);
    const bytes = text ? Buffer.from(body.toString('latin1'), 'base64') : body;
    const listener = listeners.get(channel);
    if (listener === undefined) kept.set(channel, [...(kept.get(channel) ?? []), bytes]);
    else listener(bytes);
    for (const check of waiting) check();
  });
  await new Promise((resolve, reject) => {
    ws.once('open', resolve);
    ws.once('error', reject);
    ws.once('unexpected-response', (_request, response) => {
      response.resume();
      reject(new UpgradeRefused(response.statusCode ?? 0, ''));
    });
  });
  ws.on('error', () => ws.terminate());
  const { _socket: socket } = ws as unknown as { readonly _socket: Socket };
  const base64 = ws.protocol.includes('base64');
  const received = (channel: number): Buffer => Buffer.concat(kept.get(channel) ?? []);
  return {
    protocol: ws.protocol,
    socket,
    received,
    closed: closed.promise,
    destroy: () => socket.destroy(),
    raw: (message) => ws.send(message),
    closeChannel: (channel) => ws.send(Buffer.of(255, channel)),
    onData: (channel, listener) => void listeners.set(channel, listener),
    send(channel, bytes) {
      const data = Buffer.from(bytes);
      if (base64) ws.send(`${channel}${data.toString('base64')}`);
      else ws.send(Buffer.concat([Buffer.of(channel), data]));
      return !socket.writableNeedDrain;
    },
    until: (channel, bytes) =>
      new Promise((resolve, reject) => {
        const check = (): void => {
          const now = received(channel);
          if (now.length >= bytes) resolve(now);
          else if (ws.readyState === ws.CLOSED) reject(new Error('closed too early'));
          else return;
          waiting.delete(check);
        };
        waiting.add(check);
        check();
      }),
  };
}
