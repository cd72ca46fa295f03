// CheckpointContainer: not served yet.

import type { VerbHandler } from '@cribus/chassis/owner.ts';
import { Failure } from '@cribus/contracts/failure.ts';
import type { Worker } from './worker.ts';

/** unsupported, always. */
export function checkpointContainer(worker: Worker): VerbHandler<'checkpoint-container'> {
  return async () => {
    throw new Failure('unsupported', 'checkpoint-container is not served yet', {
      stage: worker.handler,
    });
  };
}
