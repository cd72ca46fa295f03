// The main thread's side of unpacking one layer: starts its thread, feeds it, and turns its end into
// a result or a failure.

import { mkdir, stat } from 'node:fs/promises';
import { Worker } from 'node:worker_threads';
import type { ThreadFailure } from '@cribus/archive/thread-failure.ts';
import type { Semaphore } from '@cribus/chassis/queue.ts';
import { Failure } from '@cribus/contracts/failure.ts';
import { removeTree } from '@cribus/host/files.ts';
import type { FromUnpackThread, ToUnpackThread, UnpackResult } from './unpack-protocol.ts';

/**
 * One is with the thread while the next one fills. The maximum of parallel unpacks counts blocks, not
 * layers, so that a layer that waits for its registry keeps no other from unpacking.
 */
const BLOCK_BYTES = 512 * 1024;

export interface Unpacking {
  /** Takes bytes of the blob; waits while the thread is behind. Raises the thread's failure. */
  write(chunk: Uint8Array): Promise<void>;
  /** The blob is whole; resolves when everything is on the disk. */
  finish(): Promise<UnpackResult>;
  /** Ends the thread and empties the directory, for another try. */
  discard(): Promise<void>;
  /** Ends the thread, wherever it is; resolves when nothing writes any more. */
  close(): Promise<void>;
}

let poolIsUp: Promise<unknown> | undefined;

/** Starts unpacking into an empty directory. */
export async function startUnpacking(
  directory: string,
  slots: Semaphore,
  signal: AbortSignal,
): Promise<Unpacking> {
  // libuv's pool threads inherit the root of whoever uses the pool first: that must be us.
  poolIsUp ??= stat('/');
  await poolIsUp;
  const file = import.meta.url.endsWith('.ts') ? './unpack.thread.ts' : './unpack.thread.mjs';
  const worker = new Worker(new URL(file, import.meta.url), { workerData: { directory } });
  let resolve: (result: UnpackResult) => void = () => {};
  let reject: (error: Error) => void = () => {};
  const outcome = new Promise<UnpackResult>((onDone, onFailed) => {
    resolve = onDone;
    reject = onFailed;
  });
  outcome.catch(() => {}); // Raised again by write and finish.
  let credited = () => {};
  worker.on('message', (message: FromUnpackThread) => {
    if (message.kind === 'credit') credited();
    else if (message.kind === 'done') resolve(message);
    else if (message.kind === 'failed') reject(failureOf(message));
  });
  worker.on('error', (error) => reject(error));
  worker.on('exit', () => reject(new Error('the unpacking thread ended early')));
  const block = { data: new Uint8Array(BLOCK_BYTES), used: 0 };

  /** A block is with the thread: it keeps a slot until the thread has taken it in. */
  let processing: Promise<void> | undefined;

  async function send(): Promise<void> {
    await processing;
    const data = block.used === BLOCK_BYTES ? block.data : block.data.slice(0, block.used);
    block.data = new Uint8Array(BLOCK_BYTES);
    block.used = 0;
    processing = slots.run(async () => {
      const credit = new Promise<void>((taken) => {
        credited = taken;
      });
      worker.postMessage({ kind: 'block', data } satisfies ToUnpackThread, [data.buffer]);
      await Promise.race([credit, outcome]);
    }, signal);
    processing.catch(() => {}); // Raised by the next send.
  }

  return {
    async write(chunk) {
      for (let at = 0; at < chunk.length; ) {
        const piece = chunk.subarray(at, at + BLOCK_BYTES - block.used);
        block.data.set(piece, block.used);
        block.used += piece.length;
        at += piece.length;
        if (block.used === BLOCK_BYTES) await send();
      }
    },
    async finish() {
      if (block.used > 0) await send();
      await processing;
      worker.postMessage({ kind: 'end' } satisfies ToUnpackThread);
      return outcome;
    },
    async discard() {
      await worker.terminate();
      await removeTree(directory);
      await mkdir(directory, { mode: 0o755 });
    },
    async close() {
      await worker.terminate();
    },
  };
}

function failureOf(message: ThreadFailure): Error {
  const stage = 'unpack';
  if (message.broken) return new Failure('data_loss', message.message, { stage });
  if (['ENOSPC', 'EDQUOT', 'EFBIG'].includes(message.code)) {
    return new Failure('limit', `no space left for the image's layers (${message.message})`, {
      stage,
    });
  }
  if (message.code.startsWith('Z_') || message.code.startsWith('ZSTD_')) {
    return new Failure('data_loss', `the layer can't be decompressed: ${message.message}`, {
      stage,
    });
  }
  if (
    ['EEXIST', 'ENOTDIR', 'EISDIR', 'ELOOP', 'ENAMETOOLONG', 'EINVAL', 'ENOENT'].includes(
      message.code,
    )
  ) {
    return new Failure('data_loss', `the layer can't be unpacked: ${message.message}`, { stage });
  }
  return new Error(`unpack: ${message.message}`);
}
