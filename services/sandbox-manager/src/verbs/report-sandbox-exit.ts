// A worker says that the process of a sandbox ended (a Sentry, a reaping init): nothing can run in
// that sandbox any more, so it is NOTREADY.

import type { VerbHandler } from '@cribus/chassis/owner.ts';
import { SandboxPhase } from '@cribus/contracts/gen/node/v1/records.ts';
import type { SandboxDeps } from '../sandbox-deps.ts';
import { updateSandbox } from '../sandbox-update.ts';

/** Creations under way, at most: as many as calls that the bus lets in. */
const EARLY_EXITS_MAX = 4096;

export function reportSandboxExit(deps: SandboxDeps): VerbHandler<'report-sandbox-exit'> {
  return async (request, context) => {
    const { podSandboxId, reason } = request;
    const record = deps.store.get(podSandboxId);
    if (record?.phase === SandboxPhase.CREATING && deps.earlyExits.size < EARLY_EXITS_MAX) {
      deps.earlyExits.set(podSandboxId, reason);
    }
    // Not under the sandbox's lock: a worker may tell us while we wait for it to stop the sandbox.
    await updateSandbox(deps, {
      id: podSandboxId,
      changed: context.changed,
      change: ({ phase }) =>
        phase === SandboxPhase.READY
          ? { phase: SandboxPhase.NOTREADY, reason: reason === '' ? 'its process ended' : reason }
          : undefined,
    });
    return {};
  };
}
