// The pod's cgroup: made only where it is absent, removed only where we made it. Its limits are the
// kubelet's business.

import { join } from 'node:path';
import { cadvisorName, pathOfParent } from '@cribus/host/cgroup-slices.ts';
import type { CgroupHost } from '@cribus/host/cgroups.ts';

/**
 * The pod's cgroup as the OCI runtime gets it; undefined without a parent, and with the systemd
 * driver, where the parent is a slice that systemd makes when the engine asks for it.
 */
export function podCgroup(parent: string, driver: 'cgroupfs' | 'systemd'): string | undefined {
  if (parent === '' || driver === 'systemd') return undefined;
  const path = join('/', parent).replace(/\/$/, '');
  return path === '' ? undefined : path;
}

/** The cgroups above one, the nearest first: `/a/b` and `/a` for `/a/b/c`. */
export function cgroupsAbove(cgroup: string): string[] {
  const parts = cgroup.split('/').slice(1, -1);
  return parts.map((_, index) => `/${parts.slice(0, parts.length - index).join('/')}`);
}

/** The topmost of the cgroups above one that is in no hierarchy; empty where none is absent. */
export function topmostAbsent(cgroups: Pick<CgroupHost, 'isAbsent'>, cgroup: string): string {
  return cgroupsAbove(cgroup).findLast((above) => cgroups.isAbsent(above)) ?? '';
}

/**
 * Where cAdvisor finds the network of a pod: it wants a cgroup for the sandbox itself, which has none
 * where it has no process. Empty for a pod without a cgroup, and for one in the host's network, whose
 * figures are the host's.
 */
export function metricsCgroup(id: string, pod: { parent: string; hostNetwork: boolean }): string {
  const parent = pathOfParent(pod.parent);
  return parent === '' || pod.hostNetwork ? '' : `${parent}/${cadvisorName(id)}`;
}
