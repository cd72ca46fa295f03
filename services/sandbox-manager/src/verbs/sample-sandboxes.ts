// sample-sandboxes: not served yet.

import type { VerbHandler } from '@cribus/chassis/owner.ts';
import { Failure } from '@cribus/contracts/failure.ts';
import type { SandboxDeps } from '../sandbox-deps.ts';

/** unsupported, always. */
export function sampleSandboxes(_deps: SandboxDeps): VerbHandler<'sample-sandboxes'> {
  return async () => {
    throw new Failure('unsupported', 'sample-sandboxes is not served yet');
  };
}
