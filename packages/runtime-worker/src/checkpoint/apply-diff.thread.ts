// The thread that puts a checkpoint's changes into a container's root filesystem. It jails itself in
// there first, so that no name and no symlink leads out, and ends with its work.

import { openSync, readSync, rmSync } from 'node:fs';
import { parentPort, workerData } from 'node:worker_threads';
import { decompressed } from '@cribus/archive/decompressed.ts';
import { containedPath, LayerWriter, pathOf } from '@cribus/archive/layer-writer.ts';
import { type TarEntry, TarReader, type TarSink } from '@cribus/archive/tar-reader.ts';
import { threadFailure } from '@cribus/archive/thread-failure.ts';
import { isErrno } from '@cribus/host/errno.ts';
import { enterJail } from '@cribus/host/jail.ts';
import type { DiffOrder, DiffOutcome } from './apply-diff.ts';

const CHUNK_BYTES = 256 * 1024;
const WHITEOUT_PREFIX = '.wh.';
const OPAQUE_MARK = '.wh..wh..opq';

const port = parentPort;
if (port === null) throw new Error('this file is a worker thread');
const order = workerData as DiffOrder;

/** The root is mounted, so what is gone is removed: overlayfs makes the whiteouts. */
class DiffSink implements TarSink {
  readonly #writer = new LayerWriter();

  entry(entry: TarEntry): void {
    const path = containedPath(entry.name);
    const slash = path.lastIndexOf('/');
    const [parent, name] = [path.slice(0, slash), path.slice(slash + 1)];
    if (!name.startsWith(WHITEOUT_PREFIX)) {
      this.#writer.entry(entry);
      return;
    }
    // containerd writes a layer, whose opaque directories are whole in the archive.
    if (name === OPAQUE_MARK) remove(parent === '' ? undefined : parent);
    else if (!name.startsWith(`${WHITEOUT_PREFIX}${WHITEOUT_PREFIX}`)) {
      remove(containedPath(`${parent}/${name.slice(WHITEOUT_PREFIX.length)}`));
    }
  }

  data(chunk: Uint8Array): void {
    this.#writer.data(chunk);
  }

  end(): void {
    this.#writer.end();
  }

  finish(): void {
    this.#writer.finish();
  }

  close(): void {
    this.#writer.close();
  }
}

/** Never the root itself. */
function remove(path: string | undefined): void {
  if (path === undefined || path === '') return;
  try {
    rmSync(pathOf(path), { recursive: true, force: true });
  } catch (error) {
    if (!isErrno(error, 'ENOENT', 'ENOTDIR')) throw error;
  }
}

function* chunksOf(fd: number): Generator<Buffer> {
  for (;;) {
    const chunk = Buffer.alloc(CHUNK_BYTES);
    const bytes = readSync(fd, chunk, 0, CHUNK_BYTES, null);
    if (bytes === 0) return;
    yield chunk.subarray(0, bytes);
  }
}

async function apply(): Promise<DiffOutcome> {
  const fd = order.archive === undefined ? undefined : openSync(order.archive, 'r');
  enterJail(order.rootfs);
  const sink = new DiffSink();
  try {
    if (fd !== undefined) {
      const reader = new TarReader(sink);
      for await (const chunk of decompressed(chunksOf(fd))) reader.write(chunk);
      reader.finish();
    }
    for (const path of order.deleted) remove(containedPath(Buffer.from(path).toString('latin1')));
    sink.finish();
    return { kind: 'done' };
  } finally {
    sink.close();
  }
}

void apply()
  .catch(threadFailure)
  .then((outcome) => {
    port.postMessage(outcome);
    port.close();
  });
