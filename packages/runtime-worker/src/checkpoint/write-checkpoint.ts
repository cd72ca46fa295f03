// Writes the archive of a checkpoint: criu's images by the engine, what changed in the root filesystem,
// and the metadata. All of it is made in a directory of the container's and beside the location, and
// becomes visible by one rename.

import { lstatSync } from 'node:fs';
import { mkdir, open, readdir, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import type { ContainerRecord } from '@cribus/contracts/gen/node/v1/records.ts';
import { readFileIfExists, removeTree } from '@cribus/host/files.ts';
import type { DeclaredVolume } from '@cribus/oci/declared-volumes.ts';
import { placesOf, type Worker, writableLayerOf } from '../worker.ts';
import { archiveInto } from './archive-file.ts';
import { CONTAINER_LOG, CRIU_IMAGES, DELETED_FILES, ROOTFS_DIFF } from './format.ts';
import { latin1 } from './latin1.ts';
import { metadataOf } from './metadata.ts';
import { writeRootfsDiff } from './rootfs-diff.ts';
import { runEngine } from './run-engine.ts';
import { writeVolumeDiff } from './volume-diff.ts';

/** In the container's directory; holds what a checkpoint in progress has made. */
const WORK = 'checkpoint';
/** In it: where the archive is being written, so that a start after a crash can remove it. */
const UNFINISHED = 'unfinished-archive';
const RESUME_BUDGET_MS = 30_000;

export interface CheckpointOrder {
  readonly record: ContainerRecord;
  /** Absolute; nothing is there. */
  readonly location: string;
  readonly signal: AbortSignal;
}

export async function writeCheckpoint(worker: Worker, order: CheckpointOrder): Promise<void> {
  const { record, location, signal } = order;
  const work = join(placesOf(worker, record.id).directory, WORK);
  const unfinished = join(
    dirname(location),
    `.${basename(location)}.${record.id.slice(0, 12)}.tmp`,
  );
  await removeTree(work);
  await mkdir(join(work, CRIU_IMAGES), { recursive: true, mode: 0o700 });
  await writeFile(join(work, UNFINISHED), unfinished);
  try {
    await whilePaused(worker, record, signal, async () => {
      await dump(worker, record, { work, signal });
      await gatherFiles(worker, record, { work, signal });
    });
    await writeArchive(worker, order, { work, unfinished });
    await rename(unfinished, location);
  } finally {
    await rm(unfinished, { force: true });
    await removeTree(work);
  }
}

/** What a killed worker left: a paused container, and files. Part of a start. */
export async function abandonCheckpoint(worker: Worker, id: string): Promise<void> {
  const work = join(placesOf(worker, id).directory, WORK);
  if (lstatSync(work, { throwIfNoEntry: false }) === undefined) return;
  const signal = worker.service.clock.timeout(RESUME_BUDGET_MS);
  const state = await worker.engine.state(id, signal);
  if (state?.status === 'paused') await runEngine(worker, 'resume', { args: [id], signal });
  const unfinished = (await readFileIfExists(join(work, UNFINISHED)))?.toString('utf8') ?? '';
  if (unfinished !== '') await rm(unfinished, { force: true });
  await removeTree(work);
}

/** So that what is read of its files is of one moment with its memory. */
async function whilePaused(
  worker: Worker,
  { id }: ContainerRecord,
  signal: AbortSignal,
  work: () => Promise<void>,
): Promise<void> {
  try {
    await runEngine(worker, 'pause', { args: [id], signal });
    await work();
  } finally {
    const limit = worker.service.clock.timeout(RESUME_BUDGET_MS);
    const state = await worker.engine.state(id, limit);
    if (state?.status === 'paused')
      await runEngine(worker, 'resume', { args: [id], signal: limit });
  }
}

interface Place {
  readonly work: string;
  readonly signal: AbortSignal;
}

async function dump(worker: Worker, { id }: ContainerRecord, { work, signal }: Place) {
  const images = join(work, CRIU_IMAGES);
  const paths = ['--image-path', images, '--work-path', work];
  await runEngine(worker, 'checkpoint', {
    args: [...paths, '--leave-running', '--file-locks', id],
    signal,
    workDirectory: work,
  });
}

async function gatherFiles(worker: Worker, record: ContainerRecord, { work, signal }: Place) {
  const { bundle, rootfs, declaredVolumes } = placesOf(worker, record.id);
  const spec = JSON.parse(await readFile(join(bundle, 'config.json'), 'utf8')) as {
    readonly mounts: readonly DeclaredVolume[];
  };
  const volumes = spec.mounts.filter(({ source }) => dirname(source) === declaredVolumes);
  const nowNs = worker.service.clock.nowNs();
  const out = await open(join(work, ROOTFS_DIFF), 'wx', 0o600);
  try {
    const archive = archiveInto(out, { nowNs, signal });
    const deleted = await writeRootfsDiff(
      {
        upper: writableLayerOf(worker, record.id),
        lowers: record.layerNames.map((name) => join(record.layersDir, name)),
        skip: new Set(spec.mounts.map(({ destination }) => destination)),
      },
      archive,
    );
    for (const volume of volumes) {
      deleted.push(...(await writeVolumeDiff(volume, { rootfs, archive })));
    }
    await archive.finish();
    if (deleted.length > 0) await writeFile(join(work, DELETED_FILES), JSON.stringify(deleted));
  } finally {
    await out.close();
  }
  for (const [name, text] of Object.entries(await metadataOf(worker, record))) {
    await writeFile(join(work, name), text);
  }
}

async function writeArchive(
  worker: Worker,
  { record, signal }: CheckpointOrder,
  { work, unfinished }: { readonly work: string; readonly unfinished: string },
): Promise<void> {
  const out = await open(unfinished, 'wx', 0o600);
  try {
    const archive = archiveInto(out, { nowNs: worker.service.clock.nowNs(), signal });
    const images = join(work, CRIU_IMAGES);
    await archive.addPath(CRIU_IMAGES, latin1(images));
    for (const name of (await readdir(images)).sort()) {
      await archive.addPath(`${CRIU_IMAGES}/${name}`, latin1(join(images, name)));
    }
    for (const name of (await readdir(work)).sort()) {
      if (name === CRIU_IMAGES || name === UNFINISHED) continue;
      await archive.addPath(name, latin1(join(work, name)));
    }
    if (record.logPath !== '') await addLog(archive, record.logPath);
    await archive.finish();
    await out.sync();
  } finally {
    await out.close();
  }
}

async function addLog(archive: ReturnType<typeof archiveInto>, path: string): Promise<void> {
  const stats = lstatSync(path, { throwIfNoEntry: false });
  if (stats?.isFile()) await archive.addPath(CONTAINER_LOG, latin1(path));
}
