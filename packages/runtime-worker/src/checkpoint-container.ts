// CheckpointContainer: an archive of a running container, its memory by criu and its files, that
// checkpointctl, CRI-O, containerd and Podman read. The container is paused for it and runs on after.

import { lstat } from 'node:fs/promises';
import { dirname, isAbsolute } from 'node:path';
import type { VerbHandler } from '@cribus/chassis/owner.ts';
import { Failure } from '@cribus/contracts/failure.ts';
import { ContainerPhase } from '@cribus/contracts/gen/node/v1/records.ts';
import { isErrno } from '@cribus/host/errno.ts';
import { withJoinedSignal } from '@cribus/host/joined-signals.ts';
import { refuseCheckpoints } from './checkpoint/refuse.ts';
import { writeCheckpoint } from './checkpoint/write-checkpoint.ts';
import { phaseName } from './phases.ts';
import { requireContainer, type Worker } from './worker.ts';

const TIMEOUT_S_MAX = 24 * 60 * 60;

/**
 * wrong_state unless the container runs, and where criu can't work here, with its reason; unsupported
 * for a handler without criu; invalid_argument for a bad location. Nothing is left of one that fails.
 */
export function checkpointContainer(worker: Worker): VerbHandler<'checkpoint-container'> {
  return async ({ containerId, location, timeoutS }, context) => {
    const { id } = requireContainer(worker, containerId);
    refuseCheckpoints(worker, `container ${id} can't be checkpointed`);
    await checkLocation(location);
    if (timeoutS < 0n) throw new Failure('invalid_argument', `a timeout of ${timeoutS} s`);
    const limitMs = Math.min(Number(timeoutS), TIMEOUT_S_MAX) * 1000;
    const limit = limitMs === 0 ? [] : [worker.service.clock.timeout(limitMs)];
    try {
      await withJoinedSignal([context.signal, ...limit], (signal) =>
        worker.lifecycle.run(
          id,
          async () => {
            const record = requireContainer(worker, id);
            if (record.phase !== ContainerPhase.RUNNING) {
              const phase = phaseName(record.phase);
              throw new Failure('wrong_state', `container ${id} is ${phase}: it must run`);
            }
            await writeCheckpoint(worker, { record, location, signal });
          },
          signal,
        ),
      );
    } catch (error) {
      if (!limit.some(({ aborted }) => aborted) || context.signal.aborted) throw error;
      const why = `the checkpoint of container ${id} took longer than ${timeoutS} s`;
      throw new Failure('timeout', why, { stage: 'checkpoint', cause: error });
    }
    return {};
  };
}

async function checkLocation(location: string): Promise<void> {
  const refuse = (why: string) => {
    throw new Failure('invalid_argument', `checkpoint location "${location}" ${why}`);
  };
  if (!isAbsolute(location) || location.includes('\0')) refuse('is no absolute path');
  const parent = await lookAt(dirname(location));
  if (parent?.isDirectory() !== true) refuse('is in no directory that exists');
  if ((await lookAt(location)) !== undefined) refuse('exists already');
}

async function lookAt(path: string) {
  try {
    return await lstat(path);
  } catch (error) {
    if (isErrno(error, 'ENOENT', 'ENOTDIR')) return undefined;
    throw error;
  }
}
