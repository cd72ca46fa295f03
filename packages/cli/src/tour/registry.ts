// A real registry (Debian's docker-registry) on a loopback port, for as long as the tour or a test
// wants it.

import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { request } from 'node:http';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Failure } from '@cribus/contracts/failure.ts';
import { systemClock } from '@cribus/host/clock.ts';
import { type Child, spawn } from '@cribus/host/spawn.ts';

export interface Registry {
  /** As 127.0.0.1:40123. */
  readonly host: string;
  readonly url: string;
  /** Ends it and removes its storage. */
  stop(): Promise<void>;
}

const START_BUDGET_MS = 60_000;

export interface RegistryOptions {
  /** An htpasswd file's path, to ask for basic authentication. */
  readonly htpasswd?: string;
}

/** Starts docker-registry with its storage in a temporary directory. Raises unavailable. */
export async function startRegistry(options: RegistryOptions = {}): Promise<Registry> {
  const directory = await mkdtemp(join(tmpdir(), 'cribus-registry-'));
  const port = await freePort();
  const host = `127.0.0.1:${port}`;
  const config = join(directory, 'config.yml');
  await writeFile(config, registryConfig({ directory, host, htpasswd: options.htpasswd }));
  let child: Child;
  try {
    child = spawn({
      command: 'docker-registry',
      args: ['serve', config],
      stdout: 'null',
      stderr: 'null',
    });
  } catch (error) {
    await rm(directory, { recursive: true, force: true });
    throw new Failure('unavailable', 'docker-registry is not installed: run npm run setup', {
      cause: error,
    });
  }
  const stop = async () => {
    child.kill('SIGKILL');
    await child.exited;
    await rm(directory, { recursive: true, force: true });
  };
  try {
    await answersWithin(START_BUDGET_MS, host);
  } catch (error) {
    await stop();
    throw error;
  }
  return { host, url: `http://${host}`, stop };
}

function registryConfig(options: {
  directory: string;
  host: string;
  htpasswd?: string | undefined;
}): string {
  const config = {
    version: 0.1,
    log: { level: 'error', accesslog: { disabled: true } },
    storage: {
      filesystem: { rootdirectory: join(options.directory, 'data') },
      delete: { enabled: true },
    },
    http: { addr: options.host },
    ...(options.htpasswd === undefined
      ? {}
      : { auth: { htpasswd: { realm: 'cribus', path: options.htpasswd } } }),
  };
  // JSON is YAML.
  return JSON.stringify(config);
}

/** A loopback port that nothing listens on at this moment. */
export function freePort(): Promise<number> {
  return new Promise((resolve, reject) => {
    const server = createServer();
    server.on('error', reject);
    server.listen(0, '127.0.0.1', () => {
      const address = server.address();
      server.close(() =>
        resolve(typeof address === 'object' && address !== null ? address.port : 0),
      );
    });
  });
}

async function answersWithin(budgetMs: number, host: string): Promise<void> {
  const deadline = systemClock.monotonicMs() + budgetMs;
  for (;;) {
    if (await answers(host)) return;
    if (systemClock.monotonicMs() > deadline) {
      throw new Failure(
        'unavailable',
        `docker-registry on ${host} did not answer within ${budgetMs / 1000} s`,
      );
    }
    await systemClock.sleep(50);
  }
}

function answers(host: string): Promise<boolean> {
  return new Promise((resolve) => {
    const probe = request(`http://${host}/v2/`, (answer) => {
      answer.resume();
      answer.on('end', () => resolve(true));
    });
    probe.on('error', () => resolve(false));
    probe.end();
  });
}
