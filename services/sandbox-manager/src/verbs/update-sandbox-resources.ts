// update-sandbox-resources: not served yet.

import type { VerbHandler } from '@cribus/chassis/owner.ts';
import { Failure } from '@cribus/contracts/failure.ts';
import type { SandboxDeps } from '../sandbox-deps.ts';

/** unsupported, always. */
export function updateSandboxResources(
  _deps: SandboxDeps,
): VerbHandler<'update-sandbox-resources'> {
  return async () => {
    throw new Failure('unsupported', 'update-sandbox-resources is not served yet');
  };
}
