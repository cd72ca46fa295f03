// The record of a sandbox, for the workers.

import type { VerbHandler } from '@cribus/chassis/owner.ts';
import { Failure } from '@cribus/contracts/failure.ts';
import type { SandboxDeps } from '../sandbox-deps.ts';

export function getSandbox(deps: SandboxDeps): VerbHandler<'get-sandbox'> {
  return async (request) => {
    const sandbox = deps.store.get(request.podSandboxId);
    if (sandbox === undefined) {
      throw new Failure('not_found', `there is no sandbox ${request.podSandboxId}`);
    }
    return { sandbox };
  };
}
