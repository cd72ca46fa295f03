// Exec: not served yet.

import type { VerbHandler } from '@cribus/chassis/owner.ts';
import { Failure } from '@cribus/contracts/failure.ts';
import type { Worker } from './worker.ts';

/** unsupported, always. */
export function exec(worker: Worker): VerbHandler<'exec'> {
  return async () => {
    throw new Failure('unsupported', 'exec is not served yet', { stage: worker.handler });
  };
}
