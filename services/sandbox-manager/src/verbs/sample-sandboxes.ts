// Samples the usage of all READY sandboxes at once: the pod's cgroup, and the interfaces of its network
// namespace.

import type { VerbHandler } from '@cribus/chassis/owner.ts';
import { pageAfter } from '@cribus/chassis/pages.ts';
import {
  CgroupUsage,
  NetworkFigures,
  SandboxPhase,
  type SandboxRecord,
  SandboxUsage,
} from '@cribus/contracts/gen/node/v1/records.ts';
import { pathOfParent } from '@cribus/host/cgroup-slices.ts';
import { isErrno } from '@cribus/host/errno.ts';
import { interfaceCounters } from '@cribus/host/namespaces.ts';
import type { SandboxDeps } from '../sandbox-deps.ts';

/** With details some 400 KB: a message of the bus has at most 1 MB. */
const PAGE_SANDBOXES_MAX = 250;
/** Between so many the event loop gets its turn: some 5 ms. */
const SANDBOXES_AT_ONCE = 16;

/** A pod's cgroup is left out where it has none, or shares it with another pod. */
export function sampleSandboxes(deps: SandboxDeps): VerbHandler<'sample-sandboxes'> {
  const { clock } = deps.service;
  return async ({ details, pageToken }, { signal }) => {
    const ready = deps.store.all().filter(({ phase }) => phase === SandboxPhase.READY);
    const sharedBy = new Map<string, number>();
    for (const record of ready) {
      const path = cgroupOf(record);
      sharedBy.set(path, (sharedBy.get(path) ?? 0) + 1);
    }
    const { page, nextPageToken } = pageAfter(ready, {
      token: pageToken,
      objectsMax: PAGE_SANDBOXES_MAX,
    });
    const sandboxes: SandboxUsage[] = [];
    for (const [index, record] of page.entries()) {
      if (index > 0 && index % SANDBOXES_AT_ONCE === 0) await clock.sleep(0, signal);
      const path = cgroupOf(record);
      const cgroup = sharedBy.get(path) === 1 ? readCgroup(deps, path, details) : undefined;
      const network = readNetwork(deps, record);
      sandboxes.push(
        SandboxUsage.fromPartial({
          podSandboxId: record.id,
          ...(cgroup === undefined ? {} : { cgroup, cgroupPath: path }),
          ...(network === undefined ? {} : { network }),
        }),
      );
    }
    return { sandboxes, nextPageToken };
  };
}

/** Of the pod, below the hierarchy; empty where it has none. */
function cgroupOf({ config }: SandboxRecord): string {
  return pathOfParent(config?.linux?.cgroupParent ?? '');
}

function readCgroup(deps: SandboxDeps, path: string, details: boolean): CgroupUsage | undefined {
  if (path === '') return undefined;
  const sampledAtNs = deps.service.clock.nowNs();
  const usage = deps.cgroups.usage(path, { details });
  if (usage.cpuNs === undefined && usage.memoryUsageBytes === undefined) return undefined;
  return CgroupUsage.fromPartial({ sampledAtNs, ...usage });
}

/** Undefined in the host's network, and for a namespace that is gone. */
function readNetwork(deps: SandboxDeps, { namespaces }: SandboxRecord): NetworkFigures | undefined {
  const pin = namespaces?.net ?? '';
  if (pin === '') return undefined;
  const sampledAtNs = deps.service.clock.nowNs();
  try {
    // Whatever does not leave the pod is no traffic (as cAdvisor and the kubelet have it).
    const interfaces = interfaceCounters(pin).filter(({ name }) => name !== 'lo');
    return NetworkFigures.fromPartial({ sampledAtNs, interfaces });
  } catch (error) {
    // EINVAL: the pin is no namespace any more, only its file.
    if (isErrno(error, 'ENOENT', 'EINVAL')) return undefined;
    throw error;
  }
}
