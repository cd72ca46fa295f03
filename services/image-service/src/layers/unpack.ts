// The main thread's side of unpacking one layer: starts its thread, feeds it, and turns its end into
// a result or a failure.

import { stat } from 'node:fs/promises';
import { Worker } from 'node:worker_threads';
import { Failure } from '@cribus/contracts/failure.ts';
import type { FromUnpackThread, ToUnpackThread, UnpackResult } from './unpack-protocol.ts';

/** Blocks on their way to the thread; each is up to BLOCK_BYTES. */
const CREDITS = 4;
const BLOCK_BYTES = 512 * 1024;

export interface Unpacking {
  /** Takes bytes of the blob; waits while the thread is behind. Raises the thread's failure. */
  write(chunk: Uint8Array): Promise<void>;
  /** The blob is whole; resolves when everything is on the disk. */
  finish(): Promise<UnpackResult>;
  /** Ends the thread, wherever it is; resolves when nothing writes any more. */
  close(): Promise<void>;
}

let poolIsUp: Promise<unknown> | undefined;

/** Starts unpacking into an empty directory. */
export async function startUnpacking(directory: string): Promise<Unpacking> {
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
  let credits = CREDITS;
  let wake = () => {};
  worker.on('message', (message: FromUnpackThread) => {
    if (message.kind === 'credit') {
      credits += 1;
      wake();
    } else if (message.kind === 'done') resolve(message);
    else if (message.kind === 'failed') reject(failureOf(message));
  });
  worker.on('error', (error) => reject(error));
  worker.on('exit', () => reject(new Error('the unpacking thread ended early')));
  const block = { data: new Uint8Array(BLOCK_BYTES), used: 0 };

  async function send(): Promise<void> {
    while (credits === 0) {
      const credit = new Promise<void>((taken) => {
        wake = taken;
      });
      await Promise.race([credit, outcome]);
    }
    credits -= 1;
    const data = block.used === BLOCK_BYTES ? block.data : block.data.slice(0, block.used);
    const message: ToUnpackThread = { kind: 'block', data };
    worker.postMessage(message, [data.buffer]);
    block.data = new Uint8Array(BLOCK_BYTES);
    block.used = 0;
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
      worker.postMessage({ kind: 'end' } satisfies ToUnpackThread);
      return outcome;
    },
    async close() {
      await worker.terminate();
    },
  };
}

function failureOf(message: Extract<FromUnpackThread, { kind: 'failed' }>): Error {
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
