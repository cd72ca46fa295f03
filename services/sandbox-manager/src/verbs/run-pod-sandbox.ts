// RunPodSandbox: a pod's namespaces, files, cgroup, network and, where its handler needs one, its
// process; READY when all of it is there.

import { randomBytes } from 'node:crypto';
import type { VerbHandler } from '@cribus/chassis/owner.ts';
import { addChanged } from '@cribus/chassis/records.ts';
import type { SandboxDeps } from '../sandbox-deps.ts';
import { planSandbox } from '../sandbox-plan.ts';
import { setUpSandbox } from '../set-up.ts';

/** 64 hex digits, as the tools around Kubernetes expect of ids. */
const ID_BYTES = 32;

export function runPodSandbox(deps: SandboxDeps): VerbHandler<'run-pod-sandbox'> {
  const { config } = deps.service;
  return async (request, context) => {
    const facts = { handlers: [...deps.handlers], cgroupDriver: config.cgroups.driver };
    const plan = planSandbox(request, facts);
    const { operationId, requestHash, signal, changed } = context;
    const claim = { key: plan.key, operationId, requestHash, signal };
    const { record, created } = await deps.reservations.claim(claim, () => {
      const id = randomBytes(ID_BYTES).toString('hex');
      const operation = { operationId, requestHash };
      return deps.locks
        .run(id, () => setUpSandbox(deps, context, { id, plan, operation }))
        .finally(() => deps.earlyExits.delete(id));
    });
    if (!created) {
      const report = deps.store.reports().find(({ id }) => id === record.id);
      if (report !== undefined) addChanged(changed, report);
    }
    return { podSandboxId: record.id };
  };
}
