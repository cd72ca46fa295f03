// The main thread's side of putting a checkpoint's changes into a root filesystem.

import { stat } from 'node:fs/promises';
import { Worker } from 'node:worker_threads';
import type { ThreadFailure } from '@cribus/archive/thread-failure.ts';
import { Failure } from '@cribus/contracts/failure.ts';
import { badCheckpoint } from './format.ts';

export interface DiffOrder {
  /** A mounted root filesystem; becomes the thread's root. */
  readonly rootfs: string;
  /** The archive of new and changed files; undefined: there are none. */
  readonly archive: string | undefined;
  /** Absolute within the container. */
  readonly deleted: readonly string[];
}

export type DiffOutcome = { readonly kind: 'done' } | ThreadFailure;

/** Raises invalid_argument naming the checkpoint where its archive is broken; limit on a full disk. */
export async function applyDiff(
  order: DiffOrder,
  options: { readonly place: string; readonly signal: AbortSignal },
): Promise<void> {
  // libuv's pool threads inherit the root of whoever uses the pool first: that must be us.
  await stat('/');
  const file = import.meta.url.endsWith('.ts')
    ? './apply-diff.thread.ts'
    : './apply-diff.thread.mjs';
  const worker = new Worker(new URL(file, import.meta.url), { workerData: order });
  const stop = () => void worker.terminate();
  options.signal.addEventListener('abort', stop, { once: true });
  try {
    const outcome = await new Promise<DiffOutcome>((resolve, reject) => {
      worker.on('message', resolve);
      worker.on('error', reject);
      worker.on('exit', () => reject(new Error('the thread of a restore ended early')));
    });
    if (outcome.kind === 'failed') throw failureOf(outcome, options.place);
  } catch (error) {
    options.signal.throwIfAborted();
    throw error;
  } finally {
    options.signal.removeEventListener('abort', stop);
    await worker.terminate();
  }
}

function failureOf(outcome: ThreadFailure, place: string): Error {
  if (['ENOSPC', 'EDQUOT', 'EFBIG'].includes(outcome.code)) {
    return new Failure('limit', `no space for the files of checkpoint ${place}`, {
      stage: 'checkpoint',
    });
  }
  const why = outcome.message.replace("the layer's tar archive", 'the archive of changed files');
  const ofNames = ['EEXIST', 'ENOTDIR', 'EISDIR', 'ELOOP', 'ENAMETOOLONG', 'EINVAL', 'ENOENT'];
  const bad = outcome.broken || ofNames.includes(outcome.code) || /^Z(STD)?_/.test(outcome.code);
  return bad ? badCheckpoint(place, why) : new Error(`checkpoint ${place}: ${outcome.message}`);
}
