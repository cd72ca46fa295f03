// Names of images: what a caller may write, its full form, and which stored image it means. Pure;
// used by the owner of the images and by whoever looks one up in a view.

import { Failure } from './failure.ts';
import { type Platform, rankOfImage } from './image-platform.ts';

/** A reference in full: `docker.io/library/busybox` and a tag, a digest, or both. */
export interface ImageReference {
  /** Host and optional port, as in `docker.io` or `localhost:5000`. */
  readonly registry: string;
  /** Path below the registry, as in `library/busybox`. */
  readonly path: string;
  /** `registry/path`. */
  readonly repository: string;
  /** Absent when only a digest was given. */
  readonly tag?: string;
  /** `sha256:<hex>`. */
  readonly digest?: string;
}

/** Longest reference that is looked at (distribution reference grammar: 255 for the name, and a tag or digest). */
const REFERENCE_CHARACTERS_MAX = 512;
const NAME_CHARACTERS_MAX = 255;
const DEFAULT_REGISTRY = 'docker.io';

const HOST =
  /^(?:(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])(?:\.(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9]))*|\[[a-fA-F0-9:]+\])(?::[0-9]{1,5})?$/;
const PATH_PART = /^[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*$/;
const TAG = /^[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}$/;
const DIGEST = /^sha256:[a-f0-9]{64}$/;
const HEX_64 = /^[a-f0-9]{64}$/;
/** Shorter than this, a hexadecimal word is no abbreviated id. */
const ID_PREFIX_CHARACTERS_MIN = 4;

/** True for `sha256:` and 64 lower-case hexadecimal digits. */
export function isDigest(text: string): boolean {
  return DIGEST.test(text);
}

/** True for the image ids that callers use: `sha256:<hex>`, or the 64 digits alone. */
export function isImageId(text: string): boolean {
  return DIGEST.test(text) || HEX_64.test(text);
}

/**
 * Parses a reference by the distribution grammar, with Docker's defaults: no registry means
 * docker.io, one path component there means library/, no tag and no digest means latest. Raises
 * invalid_argument for anything else.
 */
export function parseImageReference(text: string): ImageReference {
  const bad = (why: string) =>
    new Failure(
      'invalid_argument',
      `image reference ${JSON.stringify(text.slice(0, 300))} is malformed: ${why}`,
    );
  if (text === '') throw bad('it is empty');
  if (text.length > REFERENCE_CHARACTERS_MAX) throw bad('it is too long');
  if (isImageId(text)) throw bad('it is an image id, which no registry can be asked for');
  let rest = text;
  let digest: string | undefined;
  const at = rest.indexOf('@');
  if (at >= 0) {
    digest = rest.slice(at + 1);
    rest = rest.slice(0, at);
    if (!DIGEST.test(digest)) throw bad('the digest must be sha256: and 64 hexadecimal digits');
  }
  let tag: string | undefined;
  const colon = rest.lastIndexOf(':');
  if (colon > rest.lastIndexOf('/')) {
    tag = rest.slice(colon + 1);
    rest = rest.slice(0, colon);
    if (!TAG.test(tag)) throw bad('the tag must be 1 to 128 of A-Z a-z 0-9 _ . -');
  }
  const { registry, path } = splitRegistry(rest);
  if (!HOST.test(registry)) throw bad(`${JSON.stringify(registry)} is no host`);
  if (path === '' || !path.split('/').every((part) => PATH_PART.test(part))) {
    throw bad('the name must be lower-case words joined by . _ - and /');
  }
  const repository = `${registry}/${path}`;
  if (repository.length > NAME_CHARACTERS_MAX) throw bad('the name is longer than 255 characters');
  if (tag === undefined && digest === undefined) tag = 'latest';
  return {
    registry,
    path,
    repository,
    ...(tag === undefined ? {} : { tag }),
    ...(digest === undefined ? {} : { digest }),
  };
}

function splitRegistry(name: string): { registry: string; path: string } {
  const slash = name.indexOf('/');
  const first = slash < 0 ? '' : name.slice(0, slash);
  const named = first.includes('.') || first.includes(':') || first === 'localhost';
  // An upper-case first component can only be a host: paths are lower-case.
  if (slash >= 0 && (named || first.toLowerCase() !== first)) {
    const registry = first === 'index.docker.io' ? DEFAULT_REGISTRY : first;
    return { registry, path: defaultPath(registry, name.slice(slash + 1)) };
  }
  return { registry: DEFAULT_REGISTRY, path: defaultPath(DEFAULT_REGISTRY, name) };
}

function defaultPath(registry: string, path: string): string {
  return registry === DEFAULT_REGISTRY && path !== '' && !path.includes('/')
    ? `library/${path}`
    : path;
}

/** The full form by which an image is listed: the digest wins over the tag, as in containerd. */
export function canonicalReference(reference: ImageReference): string {
  return reference.digest === undefined
    ? `${reference.repository}:${reference.tag}`
    : `${reference.repository}@${reference.digest}`;
}

/** What an image is known by; ImageRecord and CRI's Image both have it. */
export interface NamedImage {
  readonly id: string;
  readonly repoTags: readonly string[];
  readonly repoDigests: readonly string[];
  /** As linux/arm64; without one it fits every machine. */
  readonly platform?: string;
}

/**
 * The image that a name means: an id with or without `sha256:`, a tag, a digest, a short name
 * (`busybox`), or the unique beginning of an id. Undefined when there is none. Where several
 * platforms share a tag or digest it is the image that fits `wanted` best, and none when none fits;
 * an id means one image whatever is wanted. Raises invalid_argument for what can name no image.
 */
export function findImage<I extends NamedImage>(
  images: Iterable<I>,
  name: string,
  wanted?: Platform,
): I | undefined {
  const { named, byId } = imagesOf([...images], name);
  return bestOf(named, wanted) ?? byId;
}

/** As findImage, of every platform. Raises invalid_argument for what can name no image. */
export function findImages<I extends NamedImage>(images: Iterable<I>, name: string): readonly I[] {
  const { named, byId } = imagesOf([...images], name);
  return named.length > 0 || byId === undefined ? named : [byId];
}

/** Those that have it as tag or digest, and the one whose id it is or begins. */
function imagesOf<I extends NamedImage>(
  all: readonly I[],
  name: string,
): { readonly named: readonly I[]; readonly byId: I | undefined } {
  if (isImageId(name)) {
    const id = name.startsWith('sha256:') ? name : `sha256:${name}`;
    return { named: [], byId: all.find((image) => image.id === id) };
  }
  const byId = findByIdPrefix(all, name);
  let reference: ImageReference;
  try {
    reference = parseImageReference(name);
  } catch (error) {
    if (byId !== undefined) return { named: [], byId };
    throw error;
  }
  const full = canonicalReference(reference);
  const named = all.filter(
    (image) => image.repoTags.includes(full) || image.repoDigests.includes(full),
  );
  return { named, byId };
}

function bestOf<I extends NamedImage>(
  images: readonly I[],
  wanted: Platform | undefined,
): I | undefined {
  if (wanted === undefined) return images[0];
  const rank = ({ platform }: I): number => rankOfImage(platform ?? '', wanted);
  return images.filter((image) => rank(image) >= 0).sort((a, b) => rank(b) - rank(a))[0];
}

function findByIdPrefix<I extends NamedImage>(all: readonly I[], name: string): I | undefined {
  const hex = name.startsWith('sha256:') ? name.slice('sha256:'.length) : name;
  if (hex.length < ID_PREFIX_CHARACTERS_MIN || !/^[a-f0-9]+$/.test(hex)) return undefined;
  const found = all.filter((image) => image.id.startsWith(`sha256:${hex}`));
  return found.length === 1 ? found[0] : undefined;
}
