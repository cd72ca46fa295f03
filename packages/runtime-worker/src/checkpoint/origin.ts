// A checkpoint that a container is to be made from: an archive on this host, whose path stands in the
// place of the image, or an image that holds what such an archive does. Both become a directory of the
// container's, and a request for the image that the container was made from.

import { constants } from 'node:fs';
import { lstat, mkdir, open, readdir, readFile, writeFile } from 'node:fs/promises';
import { isAbsolute, join } from 'node:path';
import { Failure, isFailure } from '@cribus/contracts/failure.ts';
import type { ImageRecord } from '@cribus/contracts/gen/node/v1/records.ts';
import { CreateContainerRequest } from '@cribus/contracts/gen/node/v1/verbs.ts';
import { isErrno } from '@cribus/host/errno.ts';
import { readFileIfExists, removeTree } from '@cribus/host/files.ts';
import { placesOf, type Worker } from '../worker.ts';
import { applyDiff } from './apply-diff.ts';
import {
  badCheckpoint,
  CHECKPOINT_ANNOTATIONS,
  CONFIG_DUMP,
  CRIU_IMAGES,
  DELETED_FILES,
  imageOf,
  parseConfigDump,
  parseDeletedFiles,
  parseSpecDump,
  ROOTFS_DIFF,
  SPEC_DUMP,
  type SpecDump,
} from './format.ts';
import { refuseCheckpoints } from './refuse.ts';
import { unpackCheckpoint } from './unpack-archive.ts';

export interface CheckpointOrigin {
  /** The path or the image's name, for messages. */
  readonly place: string;
  /** As it was, for the image below the container's own files. */
  readonly request: CreateContainerRequest;
  /** That image, as who made the container had named it. */
  readonly imageName: string;
}

export interface OriginOrder {
  readonly id: string;
  readonly request: CreateContainerRequest;
  readonly signal: AbortSignal;
}

/** Of a checkpoint's container, what an image of it has: names of files in its layers. */
const FILES = [CONFIG_DUMP, SPEC_DUMP, DELETED_FILES, ROOTFS_DIFF];
/** Mounts that the runtime makes itself, wherever the container is restored. */
const OUR_MOUNTS = new Set([
  ...['/proc', '/dev', '/dev/pts', '/dev/mqueue', '/dev/shm', '/sys', '/sys/fs/cgroup'],
  ...['/etc/resolv.conf', '/etc/hostname', '/etc/hosts', '/dev/termination-log'],
  ...['/run/.containerenv', '/run/secrets', '/etc/passwd', '/etc/group'],
]);
/** An image that is missing as a volume, in the kubelet's word. */
const IMAGE_VOLUME = 'ImageVolumeMountFailed';
const COPY_NEW = constants.O_WRONLY | constants.O_CREAT | constants.O_EXCL;

/** In the container's directory, until it has been restored. */
export function restoreDirectory(worker: Worker, id: string): string {
  return join(placesOf(worker, id).directory, 'restore');
}

/**
 * Undefined for a request that names an image. Raises invalid_argument for a broken or hostile
 * archive, wrong_state where criu can't work here, unsupported for a handler without it.
 */
export async function openArchive(
  worker: Worker,
  order: OriginOrder,
): Promise<CheckpointOrigin | undefined> {
  const place = order.request.config?.image?.image ?? '';
  if (!isAbsolute(place)) return undefined;
  refuseCheckpoints(worker, `container can't be restored from ${place}`);
  const directory = restoreDirectory(worker, order.id);
  await mkdir(directory, { recursive: true, mode: 0o700 });
  await unpackCheckpoint(place, directory, order.signal);
  return await readOrigin(order.request, { place, directory });
}

/** True for an image whose manifest says that it holds a checkpoint. */
export function holdsCheckpoint(image: ImageRecord): boolean {
  return CHECKPOINT_ANNOTATIONS.some((name) => name in image.checkpointAnnotations);
}

/** As openArchive, from the layers of a leased image. */
export async function openImage(
  worker: Worker,
  order: OriginOrder & { readonly layersDir: string; readonly layerNames: readonly string[] },
): Promise<CheckpointOrigin> {
  const place = order.request.config?.image?.image ?? '';
  refuseCheckpoints(worker, `container can't be restored from image ${place}`);
  const directory = restoreDirectory(worker, order.id);
  await mkdir(join(directory, CRIU_IMAGES), { recursive: true, mode: 0o700 });
  const layers = order.layerNames.map((name) => join(order.layersDir, name));
  for (const name of FILES) await copyFromLayers(layers, name, directory);
  for (const name of await imagesIn(layers, place)) {
    await copyFromLayers(layers, `${CRIU_IMAGES}/${name}`, directory);
  }
  return await readOrigin(order.request, { place, directory });
}

/** Puts what the container had changed into its mounted root filesystem. */
export async function applyOrigin(
  worker: Worker,
  order: { readonly id: string; readonly origin: CheckpointOrigin; readonly signal: AbortSignal },
): Promise<void> {
  const { id, origin, signal } = order;
  const { place } = origin;
  const directory = restoreDirectory(worker, id);
  const archive = join(directory, ROOTFS_DIFF);
  const there = (await readdir(directory)).includes(ROOTFS_DIFF);
  const deleted = await readFileIfExists(join(directory, DELETED_FILES));
  await applyDiff(
    {
      rootfs: placesOf(worker, id).rootfs,
      archive: there ? archive : undefined,
      deleted: deleted === undefined ? [] : parseDeletedFiles(deleted.toString('utf8'), place),
    },
    { place, signal },
  );
}

async function readOrigin(
  request: CreateContainerRequest,
  from: { readonly place: string; readonly directory: string },
): Promise<CheckpointOrigin> {
  const { place, directory } = from;
  const config = parseConfigDump(await textOf(directory, CONFIG_DUMP, place), place);
  requireMounts(parseSpecDump(await textOf(directory, SPEC_DUMP, place), place), request, place);
  const image = imageOf(config);
  return {
    place,
    imageName: config.rootfsImageName || config.rootfsImage || image,
    request: CreateContainerRequest.fromPartial({
      ...request,
      config: { ...request.config, image: { ...request.config?.image, image } },
    }),
  };
}

/** Why there is no lease of the image below a checkpoint: by its name, which a person can pull. */
export function withoutImage({ place, imageName }: CheckpointOrigin, reason: unknown): unknown {
  if (!isFailure(reason, 'not_found') || reason.message.startsWith(IMAGE_VOLUME)) return reason;
  const why = `its container was made of ${JSON.stringify(imageName)}`;
  const message = `checkpoint ${place}: ${why}: ${reason.message}`;
  return new Failure('not_found', message, { cause: reason });
}

async function textOf(directory: string, name: string, place: string): Promise<string> {
  const data = await readFileIfExists(join(directory, name));
  if (data === undefined) throw badCheckpoint(place, `it has no ${name}`);
  return data.toString('utf8');
}

/**
 * What the checkpoint's container had mounted must be in the request, which alone says what of the
 * host a container gets.
 */
function requireMounts(spec: SpecDump, request: CreateContainerRequest, place: string): void {
  const given = new Set(request.config?.mounts.map(({ containerPath }) => containerPath));
  const missing = spec.mounts
    .map(({ destination }) => destination)
    .filter((destination) => !OUR_MOUNTS.has(destination) && !given.has(destination));
  if (missing.length === 0) return;
  throw badCheckpoint(place, `its container also had mounts at ${missing.join(', ')}: name them`);
}

async function imagesIn(layers: readonly string[], place: string): Promise<string[]> {
  for (const layer of layers) {
    const path = join(layer, CRIU_IMAGES);
    const stats = await lstat(path).catch(absent);
    if (stats === undefined) continue;
    if (!stats.isDirectory()) throw badCheckpoint(place, `${CRIU_IMAGES} is no directory`);
    return await readdir(path);
  }
  throw badCheckpoint(place, `it has no images of criu (${CRIU_IMAGES}/)`);
}

/** The topmost layer that has the file; a link or a device is none. */
async function copyFromLayers(
  layers: readonly string[],
  name: string,
  directory: string,
): Promise<void> {
  for (const layer of layers) {
    const path = join(layer, name);
    const stats = await lstat(path).catch(absent);
    if (stats === undefined) continue;
    if (!stats.isFile()) return;
    const from = await open(path, constants.O_RDONLY | constants.O_NOFOLLOW);
    try {
      const to = await open(join(directory, name), COPY_NEW, 0o600);
      // Both are closed by the stream that ends with them.
      await writeFile(to, from.createReadStream({ autoClose: false })).finally(() => to.close());
    } finally {
      await from.close();
    }
    return;
  }
}

function absent(error: unknown): undefined {
  if (isErrno(error, 'ENOENT', 'ENOTDIR')) return undefined;
  throw error;
}

/** Frees the space; nothing of it is read after the restore. */
export async function forgetOrigin(worker: Worker, id: string): Promise<void> {
  await removeTree(restoreDirectory(worker, id));
}

/** unsupported: the ids of its files and of its memory would have to be mapped anew. */
export function refuseUserNamespace(origin: CheckpointOrigin): never {
  throw new Failure(
    'unsupported',
    `checkpoint ${origin.place} can't be restored in a pod with a user namespace`,
  );
}

/** What the container is called in criu's inventory; its presence says that a dump was whole. */
export async function requireInventory(worker: Worker, id: string): Promise<string> {
  const images = join(restoreDirectory(worker, id), CRIU_IMAGES);
  await readFile(join(images, 'inventory.img')).catch((error: unknown) => {
    throw new Failure('wrong_state', `container ${id} has no checkpoint to restore any more`, {
      cause: error,
    });
  });
  return images;
}
