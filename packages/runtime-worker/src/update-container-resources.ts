// UpdateContainerResources: not served yet.

import type { VerbHandler } from '@cribus/chassis/owner.ts';
import { Failure } from '@cribus/contracts/failure.ts';
import type { Worker } from './worker.ts';

/** unsupported, always. */
export function updateContainerResources(
  worker: Worker,
): VerbHandler<'update-container-resources'> {
  return async () => {
    throw new Failure('unsupported', 'update-container-resources is not served yet', {
      stage: worker.handler,
    });
  };
}
