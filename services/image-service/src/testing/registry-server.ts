// A registry on loopback for tests, with the faults that real ones have.

import { createHash } from 'node:crypto';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { gzipSync } from 'node:zlib';

export interface RegistryServer {
  readonly host: string;
  /** `<path without /v2/>` to body and type; by tag and by digest. */
  readonly content: Map<string, { readonly body: Buffer; readonly type: string }>;
  readonly requests: {
    readonly method: string;
    readonly url: string;
    readonly headers: IncomingMessage['headers'];
  }[];
  /** Sees each request first; true when it has answered. */
  intercept: (request: IncomingMessage, response: ServerResponse) => boolean;
  close(): Promise<void>;
}

export async function startRegistryServer(): Promise<RegistryServer> {
  const content: RegistryServer['content'] = new Map();
  const requests: RegistryServer['requests'] = [];
  const server = createServer((request, response) => {
    const { method = '', url = '', headers } = request;
    requests.push({ method, url, headers });
    if (registry.intercept(request, response)) return;
    serve(content, request, response);
  });
  await new Promise<void>((resolve) => {
    server.listen(0, '127.0.0.1', resolve);
  });
  const registry: RegistryServer = {
    host: `127.0.0.1:${(server.address() as AddressInfo).port}`,
    content,
    requests,
    intercept: () => false,
    close: () =>
      new Promise<void>((resolve) => {
        server.closeAllConnections();
        server.close(() => resolve());
      }),
  };
  return registry;
}

function serve(
  content: RegistryServer['content'],
  request: IncomingMessage,
  response: ServerResponse,
): void {
  const path = (request.url ?? '').replace(/^\/v2\//, '').replace(/\?.*$/, '');
  const found = content.get(path);
  if (found === undefined) {
    response.writeHead(404, { 'content-type': 'application/json' });
    response.end('{"errors":[{"code":"MANIFEST_UNKNOWN"}]}');
    return;
  }
  const from = Number(/^bytes=([0-9]+)-$/.exec(request.headers.range ?? '')?.[1] ?? 0);
  const body = found.body.subarray(from);
  response.writeHead(from > 0 ? 206 : 200, {
    'content-type': found.type,
    'content-length': body.length,
    ...(path.includes('/manifests/') ? { 'docker-content-digest': sha256(found.body) } : {}),
  });
  response.end(body);
}

export function sha256(body: Uint8Array): string {
  return `sha256:${createHash('sha256').update(body).digest('hex')}`;
}

export interface TestImage {
  readonly id: string;
  readonly digest: string;
  readonly layerDigests: readonly string[];
  readonly sizeBytes: number;
}

/** Puts an image of these tar archives there; returns what it must be known by. */
export function publishImage(
  registry: RegistryServer,
  image: {
    readonly path: string;
    readonly tag: string;
    readonly layers: readonly Buffer[];
    readonly compress?: (tar: Buffer) => Buffer;
    readonly architecture?: string;
    readonly diffIds?: readonly string[];
    readonly labels?: Readonly<Record<string, string>>;
  },
): TestImage {
  const compress = image.compress ?? gzipSync;
  const config = Buffer.from(
    JSON.stringify({
      os: 'linux',
      architecture: image.architecture ?? { x64: 'amd64', arm64: 'arm64' }[process.arch as string],
      config: { Cmd: ['/bin/true'], Labels: image.labels ?? {} },
      rootfs: { type: 'layers', diff_ids: image.diffIds ?? image.layers.map(sha256) },
    }),
  );
  const put = (kind: string, name: string, body: Buffer, type: string) =>
    registry.content.set(`${image.path}/${kind}/${name}`, { body, type });
  const blob = (body: Buffer, mediaType: string) => {
    put('blobs', sha256(body), body, 'application/octet-stream');
    return { mediaType, digest: sha256(body), size: body.length };
  };
  const layers = image.layers.map((tar) =>
    blob(compress(tar), 'application/vnd.oci.image.layer.v1.tar+gzip'),
  );
  const type = 'application/vnd.oci.image.manifest.v1+json';
  const manifest = Buffer.from(
    JSON.stringify({
      schemaVersion: 2,
      mediaType: type,
      config: blob(config, 'application/vnd.oci.image.config.v1+json'),
      layers,
    }),
  );
  put('manifests', image.tag, manifest, type);
  put('manifests', sha256(manifest), manifest, type);
  return {
    id: sha256(config),
    digest: sha256(manifest),
    layerDigests: layers.map((layer) => layer.digest),
    sizeBytes: config.length + layers.reduce((sum, layer) => sum + layer.size, 0),
  };
}
