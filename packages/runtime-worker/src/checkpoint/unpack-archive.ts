// Takes a checkpoint archive apart: its metadata and criu's images, into an empty directory. Nobody
// vouches for such a file, so only plain files with the names of the format are written, and a name that
// climbs out, a link, or a size that the file can't have is refused.

import { closeSync, constants, mkdirSync, openSync, writeSync } from 'node:fs';
import { type FileHandle, open } from 'node:fs/promises';
import { join } from 'node:path';
import { compressionOf, decompressed } from '@cribus/archive/decompressed.ts';
import { containedPath } from '@cribus/archive/layer-writer.ts';
import { readable } from '@cribus/archive/tar-header.ts';
import { type TarEntry, TarReader, type TarSink } from '@cribus/archive/tar-reader.ts';
import { isFailure } from '@cribus/contracts/failure.ts';
import { isErrno } from '@cribus/host/errno.ts';
import {
  BIND_MOUNTS,
  badCheckpoint,
  CONFIG_DUMP,
  CONTAINER_LOG,
  CRIU_IMAGES,
  DELETED_FILES,
  METADATA_BYTES_MAX,
  ROOTFS_DIFF,
  SPEC_DUMP,
  STATUS,
  STATUS_DUMP,
} from './format.ts';

/** The metadata, each read whole into memory later. */
const METADATA = [CONFIG_DUMP, SPEC_DUMP, STATUS_DUMP, STATUS, DELETED_FILES, BIND_MOUNTS];
/** What a restore uses; others are skipped. */
const WANTED = [CONFIG_DUMP, SPEC_DUMP, DELETED_FILES, ROOTFS_DIFF, CONTAINER_LOG];
const IMAGE_NAME = /^\/checkpoint\/([A-Za-z0-9][A-Za-z0-9._-]{0,200})$/;
/** criu writes one for each kind of resource of each process. */
const IMAGES_MAX = 100_000;
/** Of all files together, unpacked. */
const BYTES_MAX = 256 * 2 ** 30;
const CHUNK_BYTES = 256 * 1024;
const WRITE_NEW = constants.O_WRONLY | constants.O_CREAT | constants.O_EXCL | constants.O_NOFOLLOW;

/** Raises invalid_argument naming the archive for anything that is not a whole checkpoint. */
export async function unpackCheckpoint(
  path: string,
  directory: string,
  signal: AbortSignal,
): Promise<void> {
  const file = await openArchive(path);
  try {
    const { size } = await file.stat();
    const first = Buffer.alloc(4);
    await file.read(first, 0, 4, 0);
    const packed = compressionOf(first) !== 'none';
    const sink = new CheckpointSink(path, { directory, bytesMax: packed ? BYTES_MAX : size });
    try {
      await readInto(new TarReader(sink), { file, signal });
    } finally {
      sink.close();
    }
    sink.requireWhole();
  } catch (error) {
    throw translated(error, path);
  } finally {
    await file.close();
  }
}

async function openArchive(path: string): Promise<FileHandle> {
  try {
    const file = await open(path, constants.O_RDONLY | constants.O_NONBLOCK);
    if ((await file.stat()).isFile()) return file;
    await file.close();
  } catch (error) {
    if (isErrno(error, 'ENOENT', 'ENOTDIR')) throw badCheckpoint(path, 'there is no such file');
    throw error;
  }
  throw badCheckpoint(path, 'it is no regular file');
}

async function readInto(
  reader: TarReader,
  { file, signal }: { readonly file: FileHandle; readonly signal: AbortSignal },
): Promise<void> {
  const raw = file.createReadStream({ start: 0, autoClose: false, highWaterMark: CHUNK_BYTES });
  for await (const chunk of decompressed(raw)) {
    signal.throwIfAborted();
    reader.write(chunk);
  }
  reader.finish();
}

/** The reader speaks of layers and zlib of its own codes; both mean that the archive is broken. */
function translated(error: unknown, path: string): unknown {
  if (isFailure(error, 'data_loss')) {
    return badCheckpoint(path, error.message.replace("the layer's tar archive", 'the archive'));
  }
  if (error instanceof Error && 'code' in error && /^Z(?:STD)?_/.test(String(error.code))) {
    return badCheckpoint(path, `it can't be decompressed: ${error.message}`);
  }
  return error;
}

class CheckpointSink implements TarSink {
  readonly #place: string;
  readonly #directory: string;
  readonly #bytesMax: number;
  readonly #seen = new Set<string>();
  #fd: number | undefined;
  #bytes = 0;

  constructor(place: string, options: { readonly directory: string; readonly bytesMax: number }) {
    this.#place = place;
    this.#directory = options.directory;
    this.#bytesMax = options.bytesMax;
    mkdirSync(join(this.#directory, CRIU_IMAGES), { mode: 0o700 });
  }

  entry(entry: TarEntry): void {
    const path = containedPath(entry.name);
    const shown = JSON.stringify(readable(entry.name));
    this.#bytes += entry.sizeBytes;
    if (this.#bytes > this.#bytesMax) {
      throw badCheckpoint(this.#place, `${shown} would be larger than the archive can be`);
    }
    if (entry.kind === 'directory') return;
    const name = path.slice(1);
    const image = IMAGE_NAME.exec(path)?.[1];
    const wanted = image !== undefined || WANTED.includes(name);
    if (!wanted && !path.startsWith(`/${CRIU_IMAGES}/`)) return;
    if (!wanted) throw badCheckpoint(this.#place, `${shown} is no name of an image of criu`);
    if (entry.kind !== 'file') {
      throw badCheckpoint(this.#place, `${shown} is a ${entry.kind}, not a file`);
    }
    if (METADATA.includes(name) && entry.sizeBytes > METADATA_BYTES_MAX) {
      throw badCheckpoint(this.#place, `${shown} has ${entry.sizeBytes} bytes`);
    }
    if (this.#seen.has(name)) throw badCheckpoint(this.#place, `${shown} is there twice`);
    this.#seen.add(name);
    if (this.#seen.size > IMAGES_MAX) throw badCheckpoint(this.#place, 'it has too many files');
    this.#fd = openSync(join(this.#directory, name), WRITE_NEW, 0o600);
  }

  data(chunk: Uint8Array): void {
    if (this.#fd === undefined) return;
    for (let at = 0; at < chunk.length; ) at += writeSync(this.#fd, chunk, at);
  }

  end(): void {
    this.close();
  }

  close(): void {
    if (this.#fd !== undefined) closeSync(this.#fd);
    this.#fd = undefined;
  }

  requireWhole(): void {
    for (const name of [CONFIG_DUMP, SPEC_DUMP]) {
      if (!this.#seen.has(name)) throw badCheckpoint(this.#place, `it has no ${name}`);
    }
    if (![...this.#seen].some((name) => name.startsWith(`${CRIU_IMAGES}/`))) {
      throw badCheckpoint(this.#place, `it has no images of criu (${CRIU_IMAGES}/)`);
    }
  }
}
