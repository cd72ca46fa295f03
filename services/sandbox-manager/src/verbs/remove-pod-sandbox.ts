// RemovePodSandbox: stops what still runs, removes its containers and everything of the sandbox.
// Removing what is absent is success (CRI).

import { orAborted } from '@cribus/chassis/abort.ts';
import type { VerbHandler } from '@cribus/chassis/owner.ts';
import { hostFailure } from '../host-failure.ts';
import type { Caller, SandboxDeps } from '../sandbox-deps.ts';
import { removeSandbox } from '../tear-down.ts';

export function removePodSandbox(deps: SandboxDeps): VerbHandler<'remove-pod-sandbox'> {
  return async (request, context) => {
    await removeById(deps, context, request.podSandboxId);
    return {};
  };
}

/** Removes a sandbox under its lock; nothing to do where it is absent. */
export async function removeById(deps: SandboxDeps, caller: Caller, id: string): Promise<void> {
  const removed = deps.locks.run(id, async () => {
    caller.signal.throwIfAborted();
    await removeSandbox(deps, caller, id);
  });
  try {
    await orAborted(removed, caller.signal);
  } catch (error) {
    throw hostFailure(error, { stage: 'sandbox removal', sandboxId: id });
  }
}
