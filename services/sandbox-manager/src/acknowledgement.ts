// The kubelet has the answer to a RunPodSandbox: the same request again is a duplicate from now on,
// also after our restart.

import type { SandboxDeps } from './sandbox-deps.ts';

/** Notes it in the record; a failure to write is only logged, as a lesser memory is all it costs. */
export function acknowledgeCreation(deps: SandboxDeps, operationId: string): void {
  const found = deps.store.all().find((record) => record.operation?.operationId === operationId);
  if (found === undefined) return;
  const noted = deps.locks.run(found.id, async () => {
    const record = deps.store.get(found.id);
    if (record?.operation === undefined || record.operation.acknowledged) return;
    await deps.store.put({ ...record, operation: { ...record.operation, acknowledged: true } });
  });
  noted.catch((error: unknown) => {
    deps.service.log.warn({ pod_sandbox_id: found.id, error }, 'an acknowledgement is not kept');
  });
}
