// Attach: not served yet.

import type { VerbHandler } from '@cribus/chassis/owner.ts';
import { Failure } from '@cribus/contracts/failure.ts';
import type { Worker } from './worker.ts';

/** unsupported, always. */
export function attach(worker: Worker): VerbHandler<'attach'> {
  return async () => {
    throw new Failure('unsupported', 'attach is not served yet', { stage: worker.handler });
  };
}
