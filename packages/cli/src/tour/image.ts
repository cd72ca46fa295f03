// Makes a small OCI image and pushes it to a registry by the distribution protocol, so that the tour
// and the tests need no registry but their own.

import { createHash } from 'node:crypto';
import { request } from 'node:http';
import { gzipSync, zstdCompressSync } from 'node:zlib';
import { type TarEntry, writeTar } from './tar-writer.ts';

export interface ImageDescription {
  /** Lowest first; each by its entries, or a whole archive. */
  readonly layers: readonly (readonly TarEntry[] | Buffer)[];
  /** The `config` part of an OCI image configuration. */
  readonly config: object;
  readonly compression?: 'gzip' | 'zstd' | 'none';
  /** Docker's media types instead of OCI's. */
  readonly docker?: boolean;
  readonly architecture?: string;
  /** Of the manifest. */
  readonly annotations?: Readonly<Record<string, string>>;
}

export interface Blob {
  readonly mediaType: string;
  readonly digest: string;
  readonly data: Buffer;
}

export interface BuiltImage {
  readonly manifest: Blob;
  readonly config: Blob;
  readonly layers: readonly Blob[];
  /** sha256 of each uncompressed tar, as the configuration names them. */
  readonly diffIds: readonly string[];
}

const OCI = 'application/vnd.oci.image';
const DOCKER = 'application/vnd.docker';
/** Node's name of this machine's architecture, as images name it (GOARCH). */
const ARCHITECTURES: Readonly<Record<string, string>> = { x64: 'amd64', arm64: 'arm64' };

/** The digest of bytes as registries spell it. */
export function digestOf(data: Uint8Array): string {
  return `sha256:${createHash('sha256').update(data).digest('hex')}`;
}

/** Builds manifest, configuration and layers (image-spec v1.1). */
export function buildImage(description: ImageDescription): BuiltImage {
  const compression = description.compression ?? 'gzip';
  const archives = description.layers.map((layer) =>
    Buffer.isBuffer(layer) ? layer : writeTar(layer),
  );
  const diffIds = archives.map(digestOf);
  const layers = archives.map((archive) =>
    blob(layerMediaType(compression, description.docker ?? false), compress(archive, compression)),
  );
  const configuration = {
    architecture: description.architecture ?? ARCHITECTURES[process.arch] ?? process.arch,
    os: 'linux',
    config: description.config,
    rootfs: { type: 'layers', diff_ids: diffIds },
    history: diffIds.map(() => ({ created_by: 'cribus' })),
  };
  const config = blob(
    description.docker ? `${DOCKER}.container.image.v1+json` : `${OCI}.config.v1+json`,
    Buffer.from(JSON.stringify(configuration)),
  );
  const manifestType = description.docker
    ? `${DOCKER}.distribution.manifest.v2+json`
    : `${OCI}.manifest.v1+json`;
  const manifest = blob(
    manifestType,
    Buffer.from(
      JSON.stringify({
        schemaVersion: 2,
        mediaType: manifestType,
        config: descriptor(config),
        layers: layers.map(descriptor),
        ...(description.annotations === undefined ? {} : { annotations: description.annotations }),
      }),
    ),
  );
  return { manifest, config, layers, diffIds };
}

/** An index that offers one manifest per platform. */
export function buildIndex(images: readonly { image: BuiltImage; architecture: string }[]): Blob {
  const mediaType = `${OCI}.index.v1+json`;
  const manifests = images.map(({ image, architecture }) => ({
    ...descriptor(image.manifest),
    platform: { os: 'linux', architecture },
  }));
  return blob(mediaType, Buffer.from(JSON.stringify({ schemaVersion: 2, mediaType, manifests })));
}

function layerMediaType(compression: string, docker: boolean): string {
  if (docker) return `${DOCKER}.image.rootfs.diff.tar.gzip`;
  return compression === 'none' ? `${OCI}.layer.v1.tar` : `${OCI}.layer.v1.tar+${compression}`;
}

function compress(data: Buffer, compression: 'gzip' | 'zstd' | 'none'): Buffer {
  if (compression === 'none') return data;
  return compression === 'gzip' ? gzipSync(data) : zstdCompressSync(data);
}

function blob(mediaType: string, data: Buffer): Blob {
  return { mediaType, digest: digestOf(data), data };
}

function descriptor({ mediaType, digest, data }: Blob) {
  return { mediaType, digest, size: data.length };
}

export interface PushTarget {
  /** As `http://127.0.0.1:5000`. */
  readonly registry: string;
  /** Repository, as `tour/hello`. */
  readonly repository: string;
  /** `Authorization` header, where the registry wants one. */
  readonly authorization?: string;
  readonly signal: AbortSignal;
}

/** Pushes blobs and manifest under each tag; raises an Error with the registry's answer. */
export async function pushImage(
  image: BuiltImage,
  tags: readonly string[],
  target: PushTarget,
): Promise<void> {
  for (const one of [image.config, ...image.layers]) await pushBlob(one, target);
  for (const tag of tags) await pushManifest(image.manifest, tag, target);
}

/** Puts one manifest or index under a tag or its digest. */
export async function pushManifest(
  manifest: Blob,
  reference: string,
  target: PushTarget,
): Promise<void> {
  await exchange(
    target,
    'PUT',
    `/v2/${target.repository}/manifests/${reference}`,
    manifest.data,
    manifest.mediaType,
  );
}

async function pushBlob(one: Blob, target: PushTarget): Promise<void> {
  const location = await exchange(
    target,
    'POST',
    `/v2/${target.repository}/blobs/uploads/`,
    Buffer.alloc(0),
    '',
  );
  const url = new URL(location, target.registry);
  url.searchParams.set('digest', one.digest);
  await exchange(
    target,
    'PUT',
    `${url.pathname}${url.search}`,
    one.data,
    'application/octet-stream',
  );
}

/** One request; answers the Location header. */
function exchange(
  target: PushTarget,
  method: string,
  path: string,
  body: Buffer,
  contentType: string,
): Promise<string> {
  const url = new URL(path, target.registry);
  const headers: Record<string, string | number> = { 'content-length': body.length };
  if (contentType !== '') headers['content-type'] = contentType;
  if (target.authorization !== undefined) headers['authorization'] = target.authorization;
  return new Promise((resolve, reject) => {
    const outgoing = request(url, { method, headers, signal: target.signal }, (answer) => {
      const chunks: Buffer[] = [];
      answer.on('data', (chunk: Buffer) => chunks.push(chunk));
      answer.on('error', reject);
      answer.on('end', () => {
        const status = answer.statusCode ?? 0;
        if (status >= 200 && status < 300) resolve(answer.headers.location ?? '');
        else
          reject(
            new Error(`${method} ${url.pathname}: ${status} ${Buffer.concat(chunks).toString()}`),
          );
      });
    });
    outgoing.on('error', reject);
    outgoing.end(body);
  });
}
