// A worker's session socket for tests: takes sessions and plays what each of them does.

import { randomBytes } from 'node:crypto';
import { mkdtemp, rm } from 'node:fs/promises';
import { createServer, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Session } from '@cribus/contracts/gen/node/v1/verbs.ts';
import {
  createFrameReader,
  encodeFrame,
  encodeJsonFrame,
  FRAME,
  type FrameType,
} from '@cribus/contracts/session.ts';
import { deferred } from './deferred.ts';

/** One dialled session, as the worker sees it. */
export interface FakeSession {
  readonly socket: Socket;
  send(type: FrameType, payload: Buffer | string): boolean;
  exit(exitCode: number): void;
  fail(kind: string, message: string): void;
  /** Every input frame from now on; what came before is handed over first. */
  onFrame(listener: (type: number, payload: Buffer) => void): void;
  readonly closed: Promise<void>;
}

export interface FakeWorker {
  /** A session as a bus reply would hold it; `play` is called when it is dialled. */
  session(play: (session: FakeSession) => void): Session;
  close(): Promise<void>;
}

export async function startFakeWorker(): Promise<FakeWorker> {
  const directory = await mkdtemp(join(tmpdir(), 'cribus-worker-'));
  const socketPath = join(directory, 's');
  const plays = new Map<string, (session: FakeSession) => void>();
  const sockets = new Set<Socket>();
  const server = createServer((socket) => {
    sockets.add(socket);
    const closed = deferred<void>();
    socket.on('error', () => socket.destroy());
    socket.on('close', () => {
      sockets.delete(socket);
      closed.resolve();
    });
    let listener: ((type: number, payload: Buffer) => void) | undefined;
    const early: [number, Buffer][] = [];
    const session: FakeSession = {
      socket,
      closed: closed.promise,
      send: (type, payload) => socket.write(encodeFrame(type, Buffer.from(payload))),
      exit: (exitCode) => void socket.write(encodeJsonFrame(FRAME.exit, { exitCode })),
      fail: (kind, message) => void socket.write(encodeJsonFrame(FRAME.failure, { kind, message })),
      onFrame(given) {
        listener = given;
        for (const [type, payload] of early.splice(0)) given(type, payload);
      },
    };
    const read = createFrameReader((type, payload) => {
      if (type === FRAME.secret) {
        const play = plays.get(payload.toString('hex'));
        if (play === undefined || !plays.delete(payload.toString('hex'))) socket.destroy();
        else play(session);
      } else if (listener === undefined) early.push([type, payload]);
      else listener(type, payload);
    });
    socket.on('data', read);
  });
  await new Promise<void>((resolve) => server.listen(socketPath, resolve));
  return {
    session(play) {
      const secret = randomBytes(16);
      plays.set(secret.toString('hex'), play);
      return { socketPath, secret };
    },
    async close() {
      for (const socket of sockets) socket.destroy();
      await new Promise((resolve) => server.close(resolve));
      await rm(directory, { recursive: true });
    },
  };
}
