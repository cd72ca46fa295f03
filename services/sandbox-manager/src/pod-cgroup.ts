// The pod's cgroup: made only where it is absent, removed only where we made it. Its limits are the
// kubelet's business.

import { join } from 'node:path';

/**
 * The pod's cgroup as the OCI runtime gets it; undefined without a parent, and with the systemd
 * driver, where the parent is a slice that systemd makes when the engine asks for it.
 */
export function podCgroup(parent: string, driver: 'cgroupfs' | 'systemd'): string | undefined {
  if (parent === '' || driver === 'systemd') return undefined;
  const path = join('/', parent).replace(/\/$/, '');
  return path === '' ? undefined : path;
}
