// A streaming server with a worker that is played, for the tests of each protocol.

import assert from 'node:assert/strict';
import type { Logger } from '@cribus/chassis/log.ts';
import { createMetrics } from '@cribus/chassis/metrics.ts';
import { FRAME } from '@cribus/contracts/session.ts';
import { systemClock } from '@cribus/host/clock.ts';
import { afterEach, beforeEach } from 'mocha';
import type { CommandAsk, ForwardAsk } from '../ask.ts';
import { createStreamJournal } from '../stream-journal.ts';
import { type StreamingServer, startStreamingServer } from '../streaming-server.ts';
import { type FakeSession, type FakeWorker, startFakeWorker } from './fake-worker.ts';
import { type SpdyTestClient, type TestStream, UpgradeRefused } from './spdy-client.ts';

export type Play = (session: FakeSession, port?: number) => void;

export const V4 = ['v4.channel.k8s.io'];
export const EXEC: CommandAsk = {
  kind: 'exec',
  requestId: 'r',
  containerId: 'c',
  handler: 'runc',
  cmd: ['cat'],
  tty: false,
  stdin: true,
  stdout: true,
  stderr: true,
};
export const FORWARD: ForwardAsk = {
  kind: 'port-forward',
  requestId: 'r',
  sandboxId: 's',
  ports: [],
};

export interface StreamWorld {
  server: StreamingServer;
  /** What the worker does for each session that is asked for; the echo, unless a test changes it. */
  play: Play;
  /** How many sessions were asked for. */
  asked: number;
  /** The fields of what was logged. */
  readonly lines: Record<string, unknown>[];
  /** Starts the server again, with other time-outs. */
  restart(changed: { creationMs?: number; idleMs?: number }): Promise<void>;
}

/** Sends everything back, and ends with the input. */
export const echo: Play = (session) => {
  session.onFrame((type, payload) => {
    if (type === FRAME.stdin) session.send(FRAME.stdout, payload);
    if (type === FRAME.stdinEnd) session.exit(0);
  });
};

/** To be called inside a describe; what it answers can be used once its tests run. */
export function streamSuite(): StreamWorld {
  const lines: Record<string, unknown>[] = [];
  const silent = Object.fromEntries(
    ['debug', 'warn', 'error', 'child'].map((name) => [name, () => log]),
  );
  const log = {
    ...silent,
    info: (fields: Record<string, unknown>) => lines.push(fields),
  } as unknown as Logger;
  let worker: FakeWorker;

  const start = (changed: { creationMs?: number; idleMs?: number } = {}) =>
    startStreamingServer({
      clock: systemClock,
      log,
      address: '127.0.0.1',
      port: 0,
      stopping: new AbortController().signal,
      idleMs: 60_000,
      creationMs: 10_000,
      journal: createStreamJournal({
        log,
        metrics: createMetrics('cri-gateway'),
        clock: systemClock,
      }),
      sessions: {
        command: async () => {
          world.asked += 1;
          return worker.session((session) => world.play(session));
        },
        forward: async (_ask, port) => {
          world.asked += 1;
          return worker.session((session) => world.play(session, port));
        },
      },
      ...changed,
    });
  const world: StreamWorld = {
    // Replaced before each test.
    server: { urlFor: () => '', close: async () => undefined },
    play: echo,
    asked: 0,
    lines,
    async restart(changed) {
      await world.server.close();
      world.server = await start(changed);
    },
  };
  beforeEach(async () => {
    lines.length = 0;
    world.asked = 0;
    world.play = echo;
    worker = await startFakeWorker();
    world.server = await start();
  });
  afterEach(async () => {
    await world.server.close();
    await worker.close();
  });
  return world;
}

/** Opens streams of these types, in this order. */
export async function openCommand(
  client: SpdyTestClient,
  ...types: readonly string[]
): Promise<(type: string) => TestStream> {
  const streams = new Map<string, TestStream>();
  for (const streamtype of types) streams.set(streamtype, await client.open({ streamtype }));
  return (type) => {
    const stream = streams.get(type);
    assert.ok(stream !== undefined, `no ${type}`);
    return stream;
  };
}

/** The status with which an upgrade was refused; fails when it wasn't. */
export async function refused(dial: Promise<unknown>): Promise<number> {
  const error = await dial.then(
    () => undefined,
    (reason: unknown) => reason,
  );
  assert.ok(error instanceof UpgradeRefused, `not refused: ${error}`);
  return error.status;
}
