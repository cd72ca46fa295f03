// The sandbox manager: owner of the node's sandboxes. Here its pieces are put together.

import { createOwner, openEpoch } from '@cribus/chassis/owner.ts';
import { createKeyedLock, createSemaphore } from '@cribus/chassis/queue.ts';
import { createRecordStore } from '@cribus/chassis/records.ts';
import { runService, type Service } from '@cribus/chassis/service.ts';
import { SandboxRecord } from '@cribus/contracts/gen/node/v1/records.ts';
import { sandboxPaths } from '@cribus/contracts/paths.ts';
import { runtimeOwner, SANDBOX_MANAGER } from '@cribus/contracts/subjects.ts';
import { detectCgroups } from '@cribus/host/cgroups.ts';
import { listDirectory, lock } from '@cribus/host/files.ts';
import { acknowledgeCreation } from './acknowledgement.ts';
import { createNetworkSource } from './network/network-source.ts';
import { openPodCidr } from './network/pod-cidr.ts';
import { createReservations } from './reservations.ts';
import { createResumption } from './resumption.ts';
import type { SandboxDeps } from './sandbox-deps.ts';
import { observeSandboxes } from './sandbox-metrics.ts';
import { SANDBOX_FORMAT } from './set-up.ts';
import {
  freeAddresses,
  noteBoot,
  releaseCorrupt,
  repairSandboxes,
  sweepStrays,
} from './start-up.ts';
import { describe } from './verbs/describe.ts';
import { getSandbox } from './verbs/get-sandbox.ts';
import { removePodSandbox } from './verbs/remove-pod-sandbox.ts';
import { reportSandboxExit } from './verbs/report-sandbox-exit.ts';
import { runPodSandbox } from './verbs/run-pod-sandbox.ts';
import { stopPodSandbox } from './verbs/stop-pod-sandbox.ts';
import { updateRuntimeConfig } from './verbs/update-runtime-config.ts';

/** Plugins are processes of some 10 ms on one core each; more at once only wait for each other. */
const PLUGINS_AT_ONCE_MAX = 16;

await runService('sandbox-manager', async (service) => {
  const directory = `${service.config.roots.state}/sandbox-manager`;
  // A second instance waits here, unsubscribed, until the first one ends.
  const held = await lock(`${directory}/lock`, service.stopping);
  service.onStop('release the lock', () => held.close());
  const epoch = await openEpoch(directory);
  const deps = assemble(service, { directory, epoch });
  const { corrupt } = await deps.store.load();
  await repairSandboxes(deps, { rebooted: await noteBoot(directory) });
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
      if (!status.stopping) resumption.resume(status.owner);
    },
    signal: service.stopping,
  });
  const handlers = new Set(deps.store.all().map(({ handler }) => handler));
  for (const handler of handlers) resumption.resume(runtimeOwner(handler), { now: true });
  await owner.serve();
  service.background('free addresses', freeAddresses(deps));
  for (const id of corrupt) service.background(`release ${id}`, releaseCorrupt(deps, id));
});

function assemble(
  service: Service,
  own: { readonly directory: string; readonly epoch: bigint },
): SandboxDeps {
  const { config, clock, metrics } = service;
  const store = createRecordStore<SandboxRecord>({
    service,
    owner: SANDBOX_MANAGER,
    epoch: own.epoch,
    kind: 'sandbox',
    codec: SandboxRecord,
    format: SANDBOX_FORMAT,
    fileOf: (id) => sandboxPaths(config.roots, id).record,
    listIds: () => listDirectory(`${config.roots.state}/sandboxes`),
  });
  return {
    service,
    store,
    locks: createKeyedLock(),
    reservations: createReservations({ records: () => store.all(), nowNs: clock.nowNs }),
    network: createNetworkSource({
      directory: config.cni.conf_dir,
      fallbackDirectory: config.cni.fallback_conf_dir,
      binDirectories: config.cni.bin_dirs,
    }),
    attachment: {
      binDirectories: config.cni.bin_dirs,
      timeoutMs: config.cni.add_timeout_s * 1_000,
      clock,
      metrics,
      slots: createSemaphore(PLUGINS_AT_ONCE_MAX),
    },
    podCidr: openPodCidr(`${own.directory}/pod-cidr`),
    cgroups: detectCgroups(),
    earlyExits: new Map(),
  };
}
