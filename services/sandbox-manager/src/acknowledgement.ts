// The kubelet has the answer to a RunPodSandbox: the same request again is a duplicate from now on,
// also after our restart.

import type { SandboxDeps } from './sandbox-deps.ts';
import { updateSandbox } from './sandbox-update.ts';

/** Notes it in the record; a failure to write is only logged, as a lesser memory is all it costs. */
export function acknowledgeCreation(deps: SandboxDeps, operationId: string): void {
  const found = deps.store.all().find((record) => record.operation?.operationId === operationId);
  if (found === undefined) return;
  const noted = updateSandbox(deps, {
    id: found.id,
    change: ({ operation }) =>
      operation === undefined || operation.acknowledged
        ? undefined
        : { operation: { ...operation, acknowledged: true } },
  });
  noted.catch((error: unknown) => {
    deps.service.log.warn({ pod_sandbox_id: found.id, error }, 'an acknowledgement is not kept');
  });
}
