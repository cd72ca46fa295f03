// A registry inside the test's own process, for what a real one won't do: it keeps every request, and
// a test can answer any of them itself, late, wrongly or not at all.

import {
  createServer as createHttpServer,
  type IncomingHttpHeaders,
  type IncomingMessage,
  type Server,
  type ServerResponse,
} from 'node:http';
import { createServer as createHttpsServer } from 'node:https';
import type { AddressInfo } from 'node:net';
import { type Blob, digestOf } from '@cribus/cli/tour/image.ts';
import type { ComposedImage } from './compose-image.ts';

export interface SeenRequest {
  readonly method: string;
  /** With its query. */
  readonly url: string;
  readonly headers: IncomingHttpHeaders;
}

/** True when it has answered, or means to leave the caller waiting. */
export type Intercept = (request: IncomingMessage, response: ServerResponse) => boolean;

export interface FaultyRegistry {
  /** As 127.0.0.1:40123. */
  readonly host: string;
  readonly url: string;
  readonly requests: SeenRequest[];
  /** Sees each request first. */
  intercept: Intercept;
  /** Answers a request as if nobody had intercepted it. */
  serve(request: IncomingMessage, response: ServerResponse): void;
  publish(repository: string, reference: string, image: ComposedImage): void;
  publishManifest(repository: string, reference: string, manifest: Blob): void;
  /** How many requests were made for a path with this in it. */
  countOf(part: string): number;
  /** Forgets requests, images and faults. */
  reset(): void;
  stop(): Promise<void>;
}

export interface TlsOptions {
  readonly cert: string;
  readonly key: string;
  /** Callers must show a certificate of this authority. */
  readonly clientCa?: string;
}

/** Starts it on a free loopback port; every path is below `prefix` (default `/v2/`). */
export async function startFaultyRegistry(
  options: { readonly tls?: TlsOptions; readonly prefix?: string } = {},
): Promise<FaultyRegistry> {
  const content = new Map<string, { readonly body: Buffer; readonly type: string }>();
  const requests: SeenRequest[] = [];
  const never: Intercept = () => false;
  const handle = (request: IncomingMessage, response: ServerResponse) => {
    const { method = '', url = '', headers } = request;
    requests.push({ method, url, headers });
    request.resume();
    if (!registry.intercept(request, response)) registry.serve(request, response);
  };
  const server = makeServer(options.tls, handle);
  server.on('clientError', (_error, socket) => socket.destroy());
  await new Promise<void>((resolve) => {
    server.listen(0, '127.0.0.1', resolve);
  });
  const host = `127.0.0.1:${(server.address() as AddressInfo).port}`;
  const registry: FaultyRegistry = {
    host,
    url: `${options.tls === undefined ? 'http' : 'https'}://${host}`,
    requests,
    intercept: never,
    serve: (request, response) =>
      serveContent(content, { request, response, prefix: options.prefix ?? '/v2/' }),
    publish(repository, reference, image) {
      for (const { digest, data } of [image.config, ...image.layers]) {
        content.set(`${repository}/blobs/${digest}`, {
          body: data,
          type: 'application/octet-stream',
        });
      }
      registry.publishManifest(repository, reference, image.manifest);
    },
    publishManifest(repository, reference, { data, digest, mediaType }) {
      content.set(`${repository}/manifests/${reference}`, { body: data, type: mediaType });
      content.set(`${repository}/manifests/${digest}`, { body: data, type: mediaType });
    },
    countOf: (part) => requests.filter(({ url }) => url.includes(part)).length,
    reset() {
      requests.length = 0;
      content.clear();
      registry.intercept = never;
    },
    stop: () =>
      new Promise<void>((resolve) => {
        server.close(() => resolve());
        server.closeAllConnections();
      }),
  };
  return registry;
}

function makeServer(
  tls: TlsOptions | undefined,
  handle: (request: IncomingMessage, response: ServerResponse) => void,
): Server {
  if (tls === undefined) return createHttpServer(handle);
  const { cert, key, clientCa } = tls;
  const asks = clientCa === undefined ? {} : { ca: clientCa, requestCert: true };
  return createHttpsServer({ cert, key, ...asks }, handle);
}

function serveContent(
  content: ReadonlyMap<string, { readonly body: Buffer; readonly type: string }>,
  at: {
    readonly request: IncomingMessage;
    readonly response: ServerResponse;
    readonly prefix: string;
  },
): void {
  const { request, response, prefix } = at;
  const path = (request.url ?? '').replace(/\?.*$/, '');
  const found = path.startsWith(prefix) ? content.get(path.slice(prefix.length)) : undefined;
  if (found === undefined) {
    answer(response, 404, '{"errors":[{"code":"MANIFEST_UNKNOWN","message":"not here"}]}');
    return;
  }
  const from = Number(/^bytes=([0-9]+)-$/.exec(request.headers.range ?? '')?.[1] ?? 0);
  const whole = found.body.length;
  if (from > 0 && from >= whole) {
    answer(response, 416);
    return;
  }
  response.writeHead(from > 0 ? 206 : 200, {
    'content-type': found.type,
    'content-length': whole - from,
    ...(path.includes('/manifests/') ? { 'docker-content-digest': digestOf(found.body) } : {}),
    ...(from > 0 ? { 'content-range': `bytes ${from}-${whole - 1}/${whole}` } : {}),
  });
  response.end(found.body.subarray(from));
}

/** Answers with a status, headers and a small text. */
export function answer(
  response: ServerResponse,
  status: number,
  body = '',
  headers: Readonly<Record<string, string>> = {},
): true {
  response.writeHead(status, { 'content-length': Buffer.byteLength(body), ...headers });
  response.end(body);
  return true;
}
