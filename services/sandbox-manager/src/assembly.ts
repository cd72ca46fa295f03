// The pieces of the sandbox manager, put together for one service.

import { createKeyedLock, createSemaphore } from '@cribus/chassis/queue.ts';
import { createRecordStore } from '@cribus/chassis/records.ts';
import type { Service } from '@cribus/chassis/service.ts';
import { SandboxRecord } from '@cribus/contracts/gen/node/v1/records.ts';
import { sandboxPaths } from '@cribus/contracts/paths.ts';
import { SANDBOX_MANAGER } from '@cribus/contracts/subjects.ts';
import { detectCgroups } from '@cribus/host/cgroups.ts';
import { listDirectory } from '@cribus/host/files.ts';
import { createNetworkSource } from './network/network-source.ts';
import { openPodCidr } from './network/pod-cidr.ts';
import { createReservations } from './reservations.ts';
import type { SandboxDeps } from './sandbox-deps.ts';
import { SANDBOX_FORMAT } from './set-up.ts';

/** Plugins are processes of some 10 ms on one core each; more at once only wait for each other. */
const PLUGINS_AT_ONCE_MAX = 16;

/** What the verbs work with; the store is empty until loaded. */
export function assembleDeps(
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
    updates: createKeyedLock(),
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
      portmapTurn: createSemaphore(1),
    },
    podCidr: openPodCidr(`${own.directory}/pod-cidr`),
    cgroups: detectCgroups(),
    handlers: new Set(Object.keys(config.runtimes.handlers)),
    earlyExits: new Map(),
  };
}
