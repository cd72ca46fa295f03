// /metrics, /healthz and /readyz of a service, on a port of its own.

import type { Clock } from '@cribus/host/clock.ts';
import { isErrno } from '@cribus/host/errno.ts';
import type { FastifyInstance } from 'fastify';
import type { Registry } from 'prom-client';
import { createHttpServer } from './http-server.ts';
import type { Logger } from './log.ts';

export interface HealthOptions {
  readonly address: string;
  /** 0: any free one. */
  readonly port: number;
  readonly registry: Registry;
  /** Named checks; all must be true to be ready. */
  readonly checks: () => ReadonlyMap<string, () => boolean>;
  readonly clock: Clock;
  readonly log: Logger;
  readonly signal: AbortSignal;
}

/** A standby waits for its predecessor's port this often. */
const PORT_RETRY_MS = 1_000;

/**
 * Serves until closed. A port that is taken is waited for in the background: a standby has the same
 * configuration as the instance that it will replace.
 */
export async function startHealth(options: HealthOptions): Promise<{ close(): Promise<void> }> {
  const { log, clock, signal } = options;
  const server = createServer(options);
  if (await listens(server, options)) return server;
  log.warn(
    { address: options.address, port: options.port },
    'the metrics port is taken; waiting for it',
  );
  const waiting = async () => {
    while (!signal.aborted) {
      await clock.sleep(PORT_RETRY_MS, signal);
      if (await listens(server, options)) return;
    }
  };
  waiting().catch((error: unknown) => {
    if (!signal.aborted) log.error({ error }, 'metrics are not served');
  });
  return server;
}

async function listens(server: FastifyInstance, options: HealthOptions): Promise<boolean> {
  try {
    const url = await server.listen({ host: options.address, port: options.port });
    options.log.info({ url: `${url}/metrics` }, 'metrics and health are served');
    return true;
  } catch (error) {
    if (isErrno(error, 'EADDRINUSE')) return false;
    throw error;
  }
}

function createServer(options: HealthOptions): FastifyInstance {
  const server = createHttpServer();
  server.get('/healthz', async () => ({ status: 'ok' }));
  server.get('/readyz', async (_request, reply) => {
    const checks = [...options.checks()].map(([name, check]) => [name, check()] as const);
    const ready = checks.every(([, isTrue]) => isTrue);
    return reply.code(ready ? 200 : 503).send({
      status: ready ? 'ready' : 'not ready',
      checks: Object.fromEntries(checks),
    });
  });
  server.get('/metrics', async (_request, reply) =>
    reply.type(options.registry.contentType).send(await options.registry.metrics()),
  );
  return server;
}
