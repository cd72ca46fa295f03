// Images made of whole tar archives, right or wrong in any place that a test names.

import { gzipSync, zstdCompressSync } from 'node:zlib';
import { type Blob, type BuiltImage, digestOf } from '@cribus/cli/tour/image.ts';

export type Compression = 'gzip' | 'zstd' | 'none';

export interface ComposedImage extends BuiltImage {
  /** As CRI must list it: the configuration's digest. */
  readonly id: string;
  /** As CRI must list it: configuration and layers, as they are served. */
  readonly sizeBytes: bigint;
}

export interface Composition {
  /** Tar archives, lowest first. */
  readonly layers: readonly Buffer[];
  /** Of all layers, or of each; default gzip. */
  readonly compression?: Compression | readonly Compression[];
  readonly docker?: boolean;
  readonly config?: object;
  readonly architecture?: string;
  readonly os?: string;
  /** Instead of the true ones. */
  readonly diffIds?: readonly string[];
  /** Makes the manifest say something else. */
  readonly amendManifest?: (manifest: Record<string, unknown>) => unknown;
}

/** Of this machine, as images name it (GOARCH). */
export const ARCHITECTURE = process.arch === 'x64' ? 'amd64' : process.arch;
export const OCI_MANIFEST = 'application/vnd.oci.image.manifest.v1+json';
export const OCI_INDEX = 'application/vnd.oci.image.index.v1+json';
export const DOCKER_MANIFEST = 'application/vnd.docker.distribution.manifest.v2+json';
export const DOCKER_LIST = 'application/vnd.docker.distribution.manifest.list.v2+json';

/** Builds the image; nothing is written anywhere. */
export function composeImage(composition: Composition): ComposedImage {
  const docker = composition.docker ?? false;
  const diffIds = composition.diffIds ?? composition.layers.map(digestOf);
  const layers = composition.layers.map((tar, index) => {
    const { compression = 'gzip' } = composition;
    const one = typeof compression === 'string' ? compression : (compression[index] ?? 'gzip');
    return blob(layerType(one, docker), compress(tar, one));
  });
  const config = blob(
    docker
      ? 'application/vnd.docker.container.image.v1+json'
      : 'application/vnd.oci.image.config.v1+json',
    json({
      architecture: composition.architecture ?? ARCHITECTURE,
      os: composition.os ?? 'linux',
      config: composition.config ?? { Cmd: ['/bin/sh'], Env: ['PATH=/bin'] },
      rootfs: { type: 'layers', diff_ids: diffIds },
    }),
  );
  const mediaType = docker ? DOCKER_MANIFEST : OCI_MANIFEST;
  const content = {
    schemaVersion: 2,
    mediaType,
    config: descriptor(config),
    layers: layers.map(descriptor),
  };
  const manifest = blob(mediaType, json(composition.amendManifest?.(content) ?? content));
  const sizeBytes = [config, ...layers].reduce((sum, { data }) => sum + data.length, 0);
  return { manifest, config, layers, diffIds, id: config.digest, sizeBytes: BigInt(sizeBytes) };
}

/** A list of manifests (or of lists), one for each platform. */
export function composeIndex(
  entries: readonly {
    readonly manifest: Blob;
    /** Without one the list says nothing of the platform. */
    readonly architecture?: string;
    readonly variant?: string;
    readonly annotations?: Readonly<Record<string, string>>;
  }[],
  options: { readonly docker?: boolean } = {},
): Blob {
  const mediaType = options.docker ? DOCKER_LIST : OCI_INDEX;
  const manifests = entries.map(({ manifest, architecture, variant, annotations }) => ({
    ...descriptor(manifest),
    platform: architecture === undefined ? undefined : { os: 'linux', architecture, variant },
    annotations,
  }));
  return blob(mediaType, json({ schemaVersion: 2, mediaType, manifests }));
}

function layerType(compression: Compression, docker: boolean): string {
  if (docker) {
    const suffix = compression === 'none' ? '' : `.${compression}`;
    return `application/vnd.docker.image.rootfs.diff.tar${suffix}`;
  }
  const suffix = compression === 'none' ? '' : `+${compression}`;
  return `application/vnd.oci.image.layer.v1.tar${suffix}`;
}

/** Of archives that several images share, each way of compressing it. */
const compressed = new WeakMap<Buffer, Map<Compression, Buffer>>();

function compress(tar: Buffer, compression: Compression): Buffer {
  if (compression === 'none') return tar;
  const known = compressed.get(tar) ?? new Map<Compression, Buffer>();
  compressed.set(tar, known);
  const data =
    known.get(compression) ?? (compression === 'gzip' ? gzipSync : zstdCompressSync)(tar);
  known.set(compression, data);
  return data;
}

function json(value: unknown): Buffer {
  return Buffer.from(JSON.stringify(value));
}

function blob(mediaType: string, data: Buffer): Blob {
  return { mediaType, digest: digestOf(data), data };
}

function descriptor({ mediaType, digest, data }: Blob) {
  return { mediaType, digest, size: data.length };
}
