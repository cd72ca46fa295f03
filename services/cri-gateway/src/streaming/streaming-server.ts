// The HTTP server that exec, attach and port-forward streams are served by. A stream is asked for over
// CRI, which answers a URL with a token; whoever comes with the token gets the stream, once.

import { createServer, type IncomingMessage, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import type { Duplex } from 'node:stream';
import type { Logger } from '@cribus/chassis/log.ts';
import { Failure } from '@cribus/contracts/failure.ts';
import type { StreamAsk } from './ask.ts';
import { refuseUpgrade } from './http-answers.ts';
import type { StreamService } from './serve-stream.ts';
import { createTokens } from './tokens.ts';

/** A kubelet's and a few tools'; what is beyond is turned away. */
const CONNECTIONS_MAX = 2_000;
/** For a whole request with its headers; clients of this server are on this node, or near it. */
const REQUEST_TIMEOUT_MS = 10_000;

const PATHS = { exec: 'exec', attach: 'attach', 'port-forward': 'portforward' } as const;

export interface StreamingServer {
  /** The URL where the stream can be had, once, for a minute. Raises limit when too many wait. */
  urlFor(ask: StreamAsk): string;
  /** Ends every stream and stops listening. */
  close(): Promise<void>;
}

/** Listens on an address and port (0: any). Raises wrong_state when that can't be had. */
export async function startStreamingServer(
  options: StreamService & {
    readonly address: string;
    readonly port: number;
    readonly log: Logger;
  },
): Promise<StreamingServer> {
  const { address, port, log, clock } = options;
  const tokens = createTokens<StreamAsk>(clock);
  const connections = new Set<Duplex>();
  const server = createServer({
    requestTimeout: REQUEST_TIMEOUT_MS,
    headersTimeout: REQUEST_TIMEOUT_MS,
    keepAliveTimeout: 1_000,
  });
  server.maxConnections = CONNECTIONS_MAX;
  server.on('connection', (socket) => {
    connections.add(socket);
    socket.on('close', () => connections.delete(socket));
  });
  server.on('request', (request, response) => {
    const found = redeem(tokens, request) !== undefined;
    response.writeHead(found ? 400 : 404, { connection: 'close', 'content-type': 'text/plain' });
    response.end(found ? 'unable to upgrade: missing upgrade headers in request\n' : 'not found\n');
  });
  server.on('upgrade', (request, socket, head) => {
    socket.on('error', () => socket.destroy());
    const ask = redeem(tokens, request);
    if (ask === undefined) {
      refuseUpgrade(socket, 404, 'not found');
      return;
    }
    serve(options, ask, { request, socket, head }).catch((error: unknown) => {
      log.error({ error }, 'a bug');
      socket.destroy();
    });
  });
  const base = baseUrl(await listen(server, address, port));
  log.info({ url: base }, 'streams are served');
  return {
    urlFor: (ask) => `${base}/${PATHS[ask.kind]}/${tokens.issue(ask)}`,
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve());
        for (const socket of connections) socket.destroy();
      }),
  };
}

async function serve(
  service: StreamService,
  ask: StreamAsk,
  upgrade: { request: IncomingMessage; socket: Duplex; head: Buffer },
): Promise<void> {
  const { serveStream } = await import('./serve-stream.ts');
  await serveStream(service, ask, upgrade);
}

/** A token is void whatever comes of it, also when it is used on another kind's path. */
function redeem(
  tokens: { redeem(token: string): StreamAsk | undefined },
  request: IncomingMessage,
): StreamAsk | undefined {
  const [path = ''] = (request.url ?? '').split('?');
  const [, kind, token, ...more] = path.split('/');
  if (token === undefined || more.length > 0) return undefined;
  const ask = tokens.redeem(token);
  if (request.method !== 'GET' && request.method !== 'POST') return undefined;
  return ask !== undefined && PATHS[ask.kind] === kind ? ask : undefined;
}

function listen(server: Server, host: string, port: number): Promise<AddressInfo> {
  return new Promise((resolve, reject) => {
    server.once('error', (cause) => {
      const message = `${host}:${port}: ${cause.message}`;
      reject(new Failure('wrong_state', message, { stage: 'gateway.streaming_address', cause }));
    });
    server.listen({ host, port }, () => resolve(server.address() as AddressInfo));
  });
}

/**
 * The URL of a listening address. Its reader is the kubelet beside us, so an address that means
 * every interface is given as the loopback one.
 */
export function baseUrl({ address, family, port }: AddressInfo): string {
  const concrete = address === '0.0.0.0' ? '127.0.0.1' : address === '::' ? '::1' : address;
  const host = concrete.includes(':') ? `[${concrete}]` : concrete;
  return `http://${family === 'IPv6' || concrete.includes(':') ? host : concrete}:${port}`;
}
