// A real nats-server and a real redis-server for tests, on loopback and in a directory of their own.

import { type ChildProcess, spawn } from 'node:child_process';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { createServer, connect as dial } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { systemClock } from '@cribus/host/clock.ts';

export interface TestServer {
  readonly url: string;
  readonly directory: string;
  start(): Promise<void>;
  /** kill -9, and waits for the end. */
  kill(): Promise<void>;
  /** Kills it and removes its directory. */
  close(): Promise<void>;
}

const READY_BUDGET_MS = 10_000;
/** As the configuration that `cribus up` generates. */
const MAX_PAYLOAD_BYTES = 20 * 1024 * 1024;

/** A nats-server; `authorization` is a block of its configuration. */
export async function createNatsServer(authorization = ''): Promise<TestServer> {
  const directory = await mkdtemp(join(tmpdir(), 'chassis-nats-'));
  const port = await freePort();
  const config = join(directory, 'nats.conf');
  const lines = [`listen: 127.0.0.1:${port}`, `max_payload: ${MAX_PAYLOAD_BYTES}`, authorization];
  await writeFile(config, lines.join('\n'));
  return createTestServer({
    url: `nats://127.0.0.1:${port}`,
    directory,
    command: ['nats-server', '-c', config],
    target: { host: '127.0.0.1', port },
  });
}

/** A redis-server on a unix socket, without persistence. */
export async function createRedisServer(): Promise<TestServer> {
  const directory = await mkdtemp(join(tmpdir(), 'chassis-redis-'));
  const path = join(directory, 'redis.sock');
  return createTestServer({
    url: `unix://${path}`,
    directory,
    command: [
      'redis-server',
      '--port',
      '0',
      '--unixsocket',
      path,
      '--save',
      '',
      '--dir',
      directory,
    ],
    target: { path },
  });
}

function createTestServer(options: {
  readonly url: string;
  readonly directory: string;
  readonly command: readonly [string, ...string[]];
  readonly target: { readonly host: string; readonly port: number } | { readonly path: string };
}): TestServer {
  let child: ChildProcess | undefined;
  const kill = async () => {
    const running = child;
    child = undefined;
    if (running === undefined || running.exitCode !== null) return;
    const exited = new Promise((resolve) => running.once('exit', resolve));
    running.kill('SIGKILL');
    await exited;
  };
  return {
    url: options.url,
    directory: options.directory,
    async start() {
      const [command, ...args] = options.command;
      child = spawn(command, args, { stdio: 'ignore' });
      const limit = systemClock.timeout(READY_BUDGET_MS);
      while (!(await answers(options.target))) await systemClock.sleep(20, limit);
    },
    kill,
    async close() {
      await kill();
      await rm(options.directory, { recursive: true, force: true });
    },
  };
}

function answers(
  target: { readonly host: string; readonly port: number } | { readonly path: string },
): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = dial(target);
    socket.once('connect', () => {
      socket.destroy();
      resolve(true);
    });
    socket.once('error', () => resolve(false));
  });
}

/** A port of loopback that is free now. */
export function freePort(): Promise<number> {
  return new Promise((resolve, reject) => {
    const server = createServer();
    server.once('error', reject);
    server.listen(0, '127.0.0.1', () => {
      const address = server.address();
      server.close(() => resolve(typeof address === 'object' ? (address?.port ?? 0) : 0));
    });
  });
}
