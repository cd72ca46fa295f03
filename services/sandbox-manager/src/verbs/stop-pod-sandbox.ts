// StopPodSandbox: kills every container, releases the network and the namespaces. Stopping what is
// stopped or absent is success (CRI).

import { orAborted } from '@cribus/chassis/abort.ts';
import type { VerbHandler } from '@cribus/chassis/owner.ts';
import { SandboxPhase } from '@cribus/contracts/gen/node/v1/records.ts';
import { hostFailure } from '../host-failure.ts';
import type { Caller, SandboxDeps } from '../sandbox-deps.ts';
import { isStopped, stopSandbox } from '../tear-down.ts';

export function stopPodSandbox(deps: SandboxDeps): VerbHandler<'stop-pod-sandbox'> {
  return async (request, context) => {
    await stopById(deps, context, request.podSandboxId);
    return {};
  };
}

/** Stops a sandbox under its lock; nothing to do where it is absent or stopped. */
export async function stopById(deps: SandboxDeps, caller: Caller, id: string): Promise<void> {
  const stopped = deps.locks.run(id, async () => {
    caller.signal.throwIfAborted();
    const record = deps.store.get(id);
    if (record === undefined || isStopped(record)) return;
    const removing = record.phase === SandboxPhase.REMOVING;
    await stopSandbox(deps, caller, { id, phase: removing ? 'removing' : 'stopping' });
  });
  try {
    await orAborted(stopped, caller.signal);
  } catch (error) {
    throw hostFailure(error, { stage: 'sandbox stop', sandboxId: id });
  }
}
