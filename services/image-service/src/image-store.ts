// The images, the leases and who needs which layer: everything that changes them goes through one
// lock, so that a layer can't be collected between an answer and the lease that it promised.

import { mkdir } from 'node:fs/promises';
import { dirname } from 'node:path';
import type { Config } from '@cribus/chassis/config.ts';
import { createKeyedLock } from '@cribus/chassis/queue.ts';
import { createRecordStore, type RecordStore } from '@cribus/chassis/records.ts';
import type { Service } from '@cribus/chassis/service.ts';
import { Failure } from '@cribus/contracts/failure.ts';
import {
  ImageRecord,
  LeaseRecord,
  type ObjectReport,
} from '@cribus/contracts/gen/node/v1/records.ts';
import { isSamePlatform, type Platform } from '@cribus/contracts/image-platform.ts';
import {
  canonicalReference,
  findImage,
  findImages,
  type ImageReference,
} from '@cribus/contracts/image-reference.ts';
import { IMAGE_SERVICE } from '@cribus/contracts/subjects.ts';
import { listDirectory, removeTree } from '@cribus/host/files.ts';
import { createBlobStore } from './blob-store.ts';
import { type Collected, createCollected } from './collected.ts';
import { type ImagePaths, imagePaths } from './image-paths.ts';
import { createLayerStore, type LayerStore } from './layers/layer-store.ts';

export interface ImageStore {
  readonly paths: ImagePaths;
  readonly layers: LayerStore;
  readonly images: RecordStore<ImageRecord>;
  readonly leases: RecordStore<LeaseRecord>;
  /** Reads the records, drops what has lost its layers, and sweeps. */
  load(): Promise<void>;
  /** Raises invalid_argument for what can name no image. */
  find(name: string, wanted?: Platform): ImageRecord | undefined;
  /** As find, of every platform. */
  findAll(name: string): readonly ImageRecord[];
  /** One at a time, for everything that changes an image or a lease. */
  exclusively<T>(work: () => Promise<T>): Promise<T>;
  /** Adds a pulled image, or its new names; a tag moves here from another image. */
  addImage(
    pulled: ImageRecord,
    name: {
      readonly reference: ImageReference;
      readonly digest: string;
      readonly changed: ObjectReport[];
    },
  ): Promise<ImageRecord>;
  /** Takes all names of an image; its layers go by the next sweep. */
  removeImage(id: string, changed: ObjectReport[]): Promise<void>;
  removeLease(id: string): Promise<void>;
  /** A manifest or configuration by digest. */
  readBlob(digest: string): Promise<Buffer | undefined>;
  /** Kept until it is released, and then while an image names it. */
  writeBlob(digest: string, body: Buffer): Promise<void>;
  releaseBlobs(digests: readonly string[]): void;
  /** What was collected since the start. */
  readonly collected: Collected;
  /** Collects layers and blobs that nothing names; deletes in the background. */
  sweep(): Promise<void>;
}

const RECORD_FORMAT = 1;
/** A repository that is re-tagged daily would otherwise grow its image's record for ever. */
const REPO_DIGESTS_MAX = 100;
const LOCK = 'images';

/** Makes the store below the stack's images directory. */
export function createImageStore(options: {
  readonly service: Service;
  readonly epoch: bigint;
  readonly directory: string;
}): ImageStore {
  const { service, epoch } = options;
  const paths = imagePaths(options.directory);
  const layers = createLayerStore({ paths, log: service.log, stopping: service.stopping });
  const shared = { service, owner: IMAGE_SERVICE, epoch, format: RECORD_FORMAT };
  const images = createRecordStore<ImageRecord>({
    ...shared,
    kind: 'image',
    codec: ImageRecord,
    fileOf: paths.recordOf,
    listIds: async () => (await listDirectory(paths.records)).map((hex) => `sha256:${hex}`),
  });
  const leases = createRecordStore<LeaseRecord>({
    ...shared,
    kind: undefined,
    codec: LeaseRecord,
    fileOf: paths.leaseOf,
    listIds: () => listDirectory(paths.leases),
  });
  const lock = createKeyedLock();
  const exclusively = <T>(work: () => Promise<T>) => lock.run(LOCK, work);
  const collected = createCollected(service);
  const blobs = createBlobStore(paths, collected);
  let emptying = false;

  async function dropIncomplete(): Promise<void> {
    for (const image of images.all()) {
      const present = await Promise.all(image.layers.map((layer) => layers.adopt(layer)));
      const config = present.every(Boolean);
      if (config) continue;
      service.log.warn({ image: image.id }, 'An image has lost layers and is dropped.');
      await removeRecord(image.id, 'image');
    }
  }

  function emptyTrash(): void {
    if (emptying) return;
    emptying = true;
    layers
      .emptyTrash()
      .then(({ layers: gone, ingests, bytes }) => {
        collected.add('layer', gone, bytes);
        collected.add('ingest', ingests, 0n);
        collected.tell();
      })
      .catch((error: unknown) => service.log.warn({ err: error }, 'The trash is not empty yet.'))
      .finally(() => {
        emptying = false;
      });
  }

  /** The record's directory goes with it. */
  async function removeRecord(
    id: string,
    kind: 'image' | 'lease',
    changed: ObjectReport[] = [],
  ): Promise<void> {
    if (kind === 'image') await images.remove(id, { changed });
    else await leases.remove(id);
    const file = kind === 'image' ? paths.recordOf(id) : paths.leaseOf(id);
    await removeTree(dirname(file));
  }

  return {
    paths,
    layers,
    images,
    leases,
    exclusively,
    collected,
    async load() {
      for (const directory of [paths.content, paths.layers, paths.ingest, paths.trash]) {
        await mkdir(directory, { recursive: true, mode: 0o700 });
      }
      for (const store of [images, leases]) {
        const { corrupt, missing } = await store.load();
        const fileOf = store === images ? paths.recordOf : paths.leaseOf;
        for (const id of missing) await removeTree(dirname(fileOf(id)));
        if (corrupt.length > 0)
          service.log.error({ corrupt }, 'Records are corrupt and set aside.');
      }
      await dropIncomplete();
      await settleNames(images, service.config);
    },
    find: (name, wanted) => findImage(images.all(), name, wanted),
    findAll: (name) => findImages(images.all(), name),
    async addImage(pulled, { reference, digest, changed }) {
      const tag = reference.digest === undefined ? canonicalReference(reference) : undefined;
      const repoDigest = `${reference.repository}@${digest}`;
      const before = images.get(pulled.id);
      const merged = ImageRecord.fromPartial({
        ...pulled,
        repoTags: [...new Set([...(before?.repoTags ?? []), ...(tag === undefined ? [] : [tag])])],
        repoDigests: [...new Set([...(before?.repoDigests ?? []), repoDigest])].slice(
          -REPO_DIGESTS_MAX,
        ),
      });
      merged.pinned = isPinned(merged, service.config);
      // The same image under the same names again is no change.
      if (before !== undefined && sameNames(before, merged) && before.pinned === merged.pinned) {
        return before;
      }
      const stored = await images.put(merged, { durable: true, changed });
      for (const other of images.all()) {
        if (tag === undefined || other.id === stored.id || !other.repoTags.includes(tag)) continue;
        // A tag names one image for each platform.
        if (!isSamePlatform(other.platform, stored.platform)) continue;
        const left = other.repoTags.filter((one) => one !== tag);
        const moved = ImageRecord.fromPartial({ ...other, repoTags: left });
        moved.pinned = isPinned(moved, service.config);
        await images.put(moved, { changed });
      }
      return stored;
    },
    removeImage: (id, changed) => removeRecord(id, 'image', changed),
    removeLease: (id) => removeRecord(id, 'lease'),
    readBlob: blobs.read,
    writeBlob: blobs.write,
    releaseBlobs: blobs.release,
    async sweep() {
      await exclusively(async () => {
        await layers.collect(neededLayers(images.all(), leases.all()));
        await blobs.collect(neededBlobs(images.all(), leases.all()));
      });
      emptyTrash();
    },
  };
}

/** After a crash between adding a tag here and taking it there, the later pull is right. */
async function settleNames(images: RecordStore<ImageRecord>, config: Config): Promise<void> {
  const owners: ImageRecord[] = [];
  const newestFirst = images.all().sort((a, b) => (a.pulledAtNs < b.pulledAtNs ? 1 : -1));
  for (const image of newestFirst) {
    const rivals = owners.filter((one) => isSamePlatform(one.platform, image.platform));
    const kept = image.repoTags.filter(
      (tag) => !rivals.some((rival) => rival.repoTags.includes(tag)),
    );
    owners.push(image);
    const pinned = isPinned(image, config);
    if (kept.length === image.repoTags.length && pinned === image.pinned) continue;
    await images.put(ImageRecord.fromPartial({ ...image, repoTags: kept, pinned }));
  }
}

function neededLayers(
  images: readonly ImageRecord[],
  leases: readonly LeaseRecord[],
): ReadonlySet<string> {
  return new Set([
    ...images.flatMap((image) => image.layers.map(({ name }) => name)),
    ...leases.flatMap((lease) => lease.layerNames),
    ...leases.flatMap((lease) => lease.volumes.flatMap((volume) => volume.layerNames)),
  ]);
}

function neededBlobs(
  images: readonly ImageRecord[],
  leases: readonly LeaseRecord[],
): ReadonlySet<string> {
  return new Set([
    ...leases.map((lease) => lease.imageId),
    ...images.flatMap(({ id, manifestDigest, repoDigests }) => [
      id,
      manifestDigest,
      ...repoDigests.map((digest) => digest.slice(digest.indexOf('@') + 1)),
    ]),
  ]);
}

/** Kept from the kubelet's collection: a name of it is configured, exactly or by a final `*`. */
function isPinned(image: ImageRecord, config: Config): boolean {
  const names = [...image.repoTags, ...image.repoDigests];
  return config.images.pinned.some((pattern) =>
    pattern.endsWith('*')
      ? names.some((name) => name.startsWith(pattern.slice(0, -1)))
      : names.includes(pattern) || findImage([image], pattern) !== undefined,
  );
}

function sameNames(a: ImageRecord, b: ImageRecord): boolean {
  const names = (image: ImageRecord) => [image.repoTags, image.repoDigests].map(String).join(' ');
  return names(a) === names(b) && a.manifestDigest === b.manifestDigest;
}

/** For verbs that need the image. Raises not_found. */
export function requireImage(store: ImageStore, name: string, wanted?: Platform): ImageRecord {
  const image = store.find(name, wanted);
  if (image === undefined)
    throw new Failure('not_found', `image ${JSON.stringify(name)} is not here`);
  return image;
}
