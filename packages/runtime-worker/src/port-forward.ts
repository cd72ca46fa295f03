// PortForward: not served yet.

import type { VerbHandler } from '@cribus/chassis/owner.ts';
import { Failure } from '@cribus/contracts/failure.ts';
import type { Worker } from './worker.ts';

/** unsupported, always. */
export function portForward(worker: Worker): VerbHandler<'port-forward'> {
  return async () => {
    throw new Failure('unsupported', 'port-forward is not served yet', { stage: worker.handler });
  };
}
