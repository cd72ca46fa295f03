// How the owner of the node's sandboxes starts: its pieces, its repairs, then its verbs.

import { mkdir } from 'node:fs/promises';
import { createOwner, openEpoch } from '@cribus/chassis/owner.ts';
import type { Service } from '@cribus/chassis/service.ts';
import { runtimeOwner, SANDBOX_MANAGER } from '@cribus/contracts/subjects.ts';
import { lock } from '@cribus/host/files.ts';
import { acknowledgeCreation } from './acknowledgement.ts';
import { assembleDeps } from './assembly.ts';
import { createResumption } from './resumption.ts';
import { observeSandboxes } from './sandbox-metrics.ts';
import {
  freeAddresses,
  releaseCorrupt,
  rememberBoot,
  repairSandboxes,
  sweepStrays,
  wasRebooted,
} from './start-up.ts';
import { describe } from './verbs/describe.ts';
import { getSandbox } from './verbs/get-sandbox.ts';
import { removePodSandbox } from './verbs/remove-pod-sandbox.ts';
import { reportSandboxExit } from './verbs/report-sandbox-exit.ts';
import { runPodSandbox } from './verbs/run-pod-sandbox.ts';
import { sampleSandboxes } from './verbs/sample-sandboxes.ts';
import { stopPodSandbox } from './verbs/stop-pod-sandbox.ts';
import { updateRuntimeConfig } from './verbs/update-runtime-config.ts';
import { updateSandboxResources } from './verbs/update-sandbox-resources.ts';

/** Takes the lock, brings the records in line with the host, and serves the verbs. */
export async function startSandboxManager(service: Service): Promise<void> {
  const directory = `${service.config.roots.state}/sandbox-manager`;
  await mkdir(directory, { recursive: true, mode: 0o700 });
  // A second instance waits here, unsubscribed, until the first one ends.
  const held = await lock(`${directory}/lock`, service.stopping);
  service.onStop('release the lock', () => held.close());
  const epoch = await openEpoch(directory);
  const deps = assembleDeps(service, { directory, epoch });
  const { corrupt } = await deps.store.load();
  await repairSandboxes(deps, { rebooted: await wasRebooted(directory) });
  await rememberBoot(directory);
  await sweepStrays(deps, new Set(corrupt));

  const owner = createOwner({
    service,
    epoch,
    kind: 'sandbox-manager',
    name: SANDBOX_MANAGER,
    directory,
    stores: [deps.store],
    verbs: {
      'run-pod-sandbox': runPodSandbox(deps),
      'stop-pod-sandbox': stopPodSandbox(deps),
      'remove-pod-sandbox': removePodSandbox(deps),
      'get-sandbox': getSandbox(deps),
      'update-runtime-config': updateRuntimeConfig(deps),
      'update-sandbox-resources': updateSandboxResources(deps),
      'sample-sandboxes': sampleSandboxes(deps),
      'report-sandbox-exit': reportSandboxExit(deps),
      describe: describe(deps),
    },
    describe: () => {
      const { ready, reason, message } = deps.network.readiness();
      return { conditions: [{ type: 'NetworkReady', status: ready, reason, message }] };
    },
    onAcknowledged: (operationId) => acknowledgeCreation(deps, operationId),
  });
  observeSandboxes(deps);
  const resumption = createResumption(deps);
  service.bus.subscribe({
    onOwner: (status) => {
      if (status.handler !== undefined) deps.handlers.add(status.handler.name);
      if (!status.stopping) resumption.resume(status.owner);
    },
    signal: service.stopping,
  });
  const handlers = new Set(deps.store.all().map(({ handler }) => handler));
  for (const handler of handlers) resumption.resume(runtimeOwner(handler), { now: true });
  await owner.serve();
  service.background('free addresses', freeAddresses(deps));
  for (const id of corrupt) service.background(`release ${id}`, releaseCorrupt(deps, id));
}
