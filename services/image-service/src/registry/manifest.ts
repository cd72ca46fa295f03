// Manifests and image configurations of Docker schema 2 and OCI: which are understood, which one of
// a list fits this machine, and what of them is used. Pure.

import { Failure } from '@cribus/contracts/failure.ts';
import { type Platform, platformText, rankOf } from '@cribus/contracts/image-platform.ts';
import { isDigest } from '@cribus/contracts/image-reference.ts';

export const MANIFEST_BYTES_MAX = 4 * 1024 * 1024;
export const CONFIG_BYTES_MAX = 8 * 1024 * 1024;
/** overlayfs takes more, a page of mount options (and the kernel's own stacking of 500) does not. */
const LAYERS_MAX = 127;
const INDEX_ENTRIES_MAX = 1000;

const INDEX_TYPES = [
  'application/vnd.oci.image.index.v1+json',
  'application/vnd.docker.distribution.manifest.list.v2+json',
];
const MANIFEST_TYPES = [
  'application/vnd.oci.image.manifest.v1+json',
  'application/vnd.docker.distribution.manifest.v2+json',
];
const CONFIG_TYPES = [
  'application/vnd.oci.image.config.v1+json',
  'application/vnd.docker.container.image.v1+json',
];
const LAYER_TYPE =
  /^application\/vnd\.(?:oci\.image\.layer(?:\.nondistributable)?\.v1\.tar(?:\+gzip|\+zstd)?|docker\.image\.rootfs(?:\.foreign)?\.diff\.tar(?:\.gzip|\.zstd)?)$/;

export const MANIFEST_ACCEPT = [...INDEX_TYPES, ...MANIFEST_TYPES].join(', ');

export interface Descriptor {
  readonly mediaType: string;
  readonly digest: string;
  readonly sizeBytes: number;
}

/** One manifest of a list. */
export interface IndexEntry extends Descriptor {
  /** Absent where the list leaves it to the image's configuration (image-spec, image-index.md). */
  readonly platform?: Platform;
  /** It is about another one, as an attestation is, and no image. */
  readonly attached: boolean;
}

interface OfType {
  readonly mediaType: string;
}

export type Manifest = OfType &
  (
    | {
        readonly kind: 'index';
        readonly entries: readonly IndexEntry[];
      }
    | {
        readonly kind: 'image';
        readonly config: Descriptor;
        readonly layers: readonly Descriptor[];
        /** As many as CRI shows. */
        readonly annotations: Readonly<Record<string, string>>;
        /** Those that say that the image holds a checkpoint. */
        readonly checkpointAnnotations: Readonly<Record<string, string>>;
      }
  );

export interface ParsedConfig {
  readonly diffIds: readonly string[];
  readonly platform: Platform;
}

/** Parses a manifest or a list of them. Raises unsupported, data_loss or limit. */
export function parseManifest(body: Buffer, contentType: string): Manifest {
  const json = object(parseJson(body, 'the manifest'), 'the manifest');
  const declared = typeof json['mediaType'] === 'string' ? json['mediaType'] : '';
  const type = declared || (contentType.split(';')[0]?.trim() ?? '');
  if (json['schemaVersion'] === 1) {
    throw new Failure(
      'unsupported',
      'the image has a schema 1 manifest, which was retired in 2019',
    );
  }
  if (INDEX_TYPES.includes(type) || (!MANIFEST_TYPES.includes(type) && 'manifests' in json)) {
    const entries = list(json['manifests'], INDEX_ENTRIES_MAX).map(indexEntry);
    return { kind: 'index', mediaType: typeOf(type, INDEX_TYPES), entries };
  }
  if (!MANIFEST_TYPES.includes(type) && !('layers' in json && 'config' in json)) {
    throw new Failure('unsupported', `manifest of the unknown media type ${JSON.stringify(type)}`);
  }
  const config = descriptor(json['config'], 'config');
  if (!CONFIG_TYPES.includes(config.mediaType)) {
    const what = JSON.stringify(config.mediaType);
    throw new Failure('unsupported', `this is no container image: its config has the type ${what}`);
  }
  const layers = list(json['layers'], LAYERS_MAX).map((item) => descriptor(item, 'layer'));
  for (const layer of layers) {
    if (!LAYER_TYPE.test(layer.mediaType)) {
      const what = JSON.stringify(layer.mediaType);
      throw new Failure('unsupported', `a layer of the unknown media type ${what}`);
    }
  }
  const annotations = annotationsOf(json['annotations']);
  return {
    kind: 'image',
    mediaType: typeOf(type, MANIFEST_TYPES),
    config,
    layers,
    annotations: shown(annotations),
    checkpointAnnotations: Object.fromEntries(
      annotations.filter(([name]) => CHECKPOINT_ANNOTATION.test(name)),
    ),
  };
}

/** Today's names (checkpointctl, lib/annotations.go), and the first one of CRI-O. */
const CHECKPOINT_ANNOTATION =
  /^(?:org\.criu\.checkpoint\.|io\.kubernetes\.cri-o\.annotations\.checkpoint\.)/;
const ANNOTATION_CHARACTERS_MAX = 1024;
/** Each list of images has them all, and a kubelet takes no message above 16 MiB. */
const SHOWN_CHARACTERS_MAX = 8 * 1024;

function annotationsOf(annotations: unknown): readonly (readonly [string, string])[] {
  if (typeof annotations !== 'object' || annotations === null) return [];
  return Object.entries(annotations).filter(
    (entry): entry is [string, string] =>
      typeof entry[1] === 'string' &&
      entry[0].length + entry[1].length <= ANNOTATION_CHARACTERS_MAX,
  );
}

function shown(annotations: readonly (readonly [string, string])[]): Record<string, string> {
  let characters = 0;
  const some = annotations.filter(([name, value]) => {
    characters += name.length + value.length;
    return characters <= SHOWN_CHARACTERS_MAX;
  });
  return Object.fromEntries(some);
}

/** A document that doesn't say its type is OCI's, where the field is optional. */
function typeOf(type: string, known: readonly string[]): string {
  return known.includes(type) ? type : (known[0] ?? '');
}

/** What of the configuration decides about its layers. Raises data_loss. */
export function parseConfigBlob(body: Buffer): ParsedConfig {
  const json = object(parseJson(body, 'the image configuration'), 'the image configuration');
  const rootfs = object(json['rootfs'], 'rootfs of the image configuration');
  const diffIds = list(rootfs['diff_ids'], LAYERS_MAX).map((item) => {
    if (typeof item !== 'string' || !isDigest(item)) throw broken('a diff_id is no digest');
    return item;
  });
  return { diffIds, platform: platformOf(json) };
}

/**
 * The entry of a list that runs best on this platform; where none says that it does, the first image
 * that says nothing, whose configuration will. Raises not_found naming what there is.
 */
export function choosePlatform(entries: readonly IndexEntry[], wanted: Platform): IndexEntry {
  let best: { readonly entry: IndexEntry; readonly rank: number } | undefined;
  for (const entry of entries) {
    const rank = entry.platform === undefined ? -1 : rankOf(entry.platform, wanted);
    if (rank >= 0 && (best === undefined || rank > best.rank)) best = { entry, rank };
  }
  if (best !== undefined) return best.entry;
  const silent = entries.find(({ platform, attached }) => platform === undefined && !attached);
  if (silent !== undefined) return silent;
  const offered = entries.flatMap((entry) =>
    entry.platform === undefined ? [] : [platformText(entry.platform)],
  );
  throw new Failure(
    'not_found',
    `the image has nothing for ${platformText(wanted)}, only ${[...new Set(offered)].slice(0, 20).join(', ') || 'what is attached to images'}`,
  );
}

/** BuildKit's mark of what it attaches to an image in the image's own list. */
const ATTACHED_ANNOTATION = 'vnd.docker.reference.type';

function indexEntry(item: unknown): IndexEntry {
  const { platform, annotations } = object(item, 'a manifest of the list');
  const attached =
    typeof annotations === 'object' && annotations !== null && ATTACHED_ANNOTATION in annotations;
  const entry = { ...descriptor(item, 'manifest of the list'), attached };
  if (typeof platform !== 'object' || platform === null) return entry;
  return { ...entry, platform: platformOf(platform as Record<string, unknown>) };
}

function platformOf(json: Record<string, unknown>): Platform {
  const word = (key: string) => (typeof json[key] === 'string' ? json[key] : '');
  return { os: word('os'), architecture: word('architecture'), variant: word('variant') };
}

function descriptor(value: unknown, what: string): Descriptor {
  const json = object(value, `a ${what}`);
  const { digest, size, mediaType } = json;
  if (typeof digest !== 'string' || !isDigest(digest)) {
    throw broken(`the digest of a ${what} must be sha256: and 64 hexadecimal digits`);
  }
  if (typeof size !== 'number' || !Number.isSafeInteger(size) || size < 0) {
    throw broken(`the size of a ${what} is no number of bytes`);
  }
  return { mediaType: typeof mediaType === 'string' ? mediaType : '', digest, sizeBytes: size };
}

function list(value: unknown, max: number): readonly unknown[] {
  if (!Array.isArray(value)) throw broken('a list is missing');
  if (value.length > max) throw new Failure('limit', `${value.length} entries, over ${max}`);
  return value;
}

function object(value: unknown, what: string): Record<string, unknown> {
  if (typeof value === 'object' && value !== null && !Array.isArray(value)) {
    return value as Record<string, unknown>;
  }
  throw broken(`${what} is no JSON object`);
}

function parseJson(body: Buffer, what: string): unknown {
  try {
    return JSON.parse(body.toString('utf8'));
  } catch {
    throw broken(`${what} is no JSON`);
  }
}

function broken(why: string): Failure {
  return new Failure('data_loss', `the image is broken: ${why}`);
}
