// The kubelet's container_log_manager.go: looks at the log of each running container, and rotates the
// one that has grown too big by rename and reopen.

import {
  existsSync,
  globSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { gzipSync } from 'node:zlib';
import { ContainerState, ListContainersRequest } from '@cribus/contracts/gen/cri/v1/api.ts';
import type { KubeletClient } from './client-checks.ts';

export interface RotationPolicy {
  readonly bytesMax: number;
  /** The current one included. */
  readonly filesMax: number;
}

let rotations = 0;

/** One round over all containers; answers what failed, by container id. */
export async function rotateLogs(
  client: KubeletClient,
  policy: RotationPolicy,
): Promise<ReadonlyMap<string, unknown>> {
  const request = ListContainersRequest.fromPartial({ filter: {} });
  const { containers } = await client.ask('listContainers', request);
  const failures = new Map<string, unknown>();
  for (const { id, state } of containers) {
    if (state !== ContainerState.CONTAINER_RUNNING) continue;
    await rotateLog(client, { id, policy }).catch((error: unknown) => failures.set(id, error));
  }
  return failures;
}

/** What the manager does for a container that ran when it was listed. */
export async function rotateLog(
  client: KubeletClient,
  { id, policy }: { readonly id: string; readonly policy: RotationPolicy },
): Promise<void> {
  const { status } = await client.ask('containerStatus', { containerId: id, verbose: false });
  const log = status?.logPath ?? '';
  if (!existsSync(log)) await client.ask('reopenContainerLog', { containerId: id });
  if (statSync(log).size < policy.bytesMax) return;
  const rotated = globSync(`${log}.*`).sort();
  const excess = rotated.splice(0, Math.max(0, rotated.length - (policy.filesMax - 2)));
  for (const path of excess) rmSync(path);
  for (const path of rotated.filter((one) => !one.endsWith('.gz'))) {
    writeFileSync(`${path}.gz`, gzipSync(readFileSync(path)));
    rmSync(path);
  }
  rotations += 1;
  const renamed = `${log}.20261124-${String(rotations).padStart(6, '0')}`;
  renameSync(log, renamed);
  try {
    await client.ask('reopenContainerLog', { containerId: id });
  } catch (error) {
    renameSync(renamed, log);
    throw error;
  }
}
