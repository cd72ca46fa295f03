// Samples the usage of containers: not served yet.

import type { VerbHandler } from '@cribus/chassis/owner.ts';
import { Failure } from '@cribus/contracts/failure.ts';
import type { Worker } from './worker.ts';

/** unsupported, always. */
export function sampleContainers(worker: Worker): VerbHandler<'sample-containers'> {
  return async () => {
    throw new Failure('unsupported', 'sample-containers is not served yet', {
      stage: worker.handler,
    });
  };
}
