// How a kubelet ends containers and pods, and removes what is left of them.

import assert from 'node:assert/strict';
import { rmSync } from 'node:fs';
import {
  type ContainerStatus,
  ExecSyncRequest,
  PodSandboxState,
} from '@cribus/contracts/gen/cri/v1/api.ts';
import { unlessGone } from './client-checks.ts';
import { unlinkLog } from './container-logs.ts';
import { allContainers, type PodManifest } from './manifest.ts';
import { GRACE_MIN_S, type NodeHands } from './node-hands.ts';
import { isRunning, isSidecar, type PodStatus } from './pod-actions.ts';

/** preStop, then StopContainer with what is left of the grace period, two seconds at least. */
export async function killContainer(
  { client, done }: NodeHands,
  pod: PodManifest,
  { status, why }: { readonly status: ContainerStatus; readonly why?: string },
): Promise<void> {
  const name = status.metadata?.name ?? '';
  const { preStop } = allContainers(pod).find((one) => one.name === name) ?? {};
  const began = performance.now();
  const containerId = status.id;
  if (preStop !== undefined) {
    const timeout = BigInt(pod.terminationGracePeriodS);
    const request = ExecSyncRequest.fromPartial({ containerId, cmd: [...preStop], timeout });
    await client.ask('execSync', request).catch(() => undefined);
  }
  const elapsedS = Math.floor((performance.now() - began) / 1000);
  const left = Math.max(GRACE_MIN_S, pod.terminationGracePeriodS - elapsedS);
  await client.ask('stopContainer', { containerId, timeout: BigInt(left) });
  done.push(`stop ${pod.name}/${name}${why === undefined ? '' : `: ${why}`}`);
}

/** Containers in parallel, then sidecars one by one from the last, then every sandbox. */
export async function killPod(
  hands: NodeHands,
  pod: PodManifest,
  status: PodStatus,
): Promise<void> {
  const running = status.containers.filter((one) => isRunning(one));
  const sidecars = pod.initContainers.filter(isSidecar).map(({ name }) => name);
  const isOfSidecar = (one: ContainerStatus) => sidecars.includes(one.metadata?.name ?? '');
  const others = running.filter((one) => !isOfSidecar(one));
  await Promise.all(others.map((one) => killContainer(hands, pod, { status: one })));
  for (const name of sidecars.toReversed()) {
    const sidecar = running.find((one) => one.metadata?.name === name);
    if (sidecar !== undefined) await killContainer(hands, pod, { status: sidecar });
  }
  for (const { id: podSandboxId } of status.sandboxes) {
    await hands.client.ask('stopPodSandbox', { podSandboxId });
  }
}

/** False once nothing of it runs: the kubelet looks at an ended pod no more. */
export function isAlive({ sandboxes, containers }: PodStatus): boolean {
  return (
    containers.some(isRunning) ||
    sandboxes.some(({ state }) => state === PodSandboxState.SANDBOX_READY)
  );
}

/** Removes the container, its log and the link to that; afterwards it has to be unknown. */
export async function removeContainer(
  { client, paths }: NodeHands,
  pod: PodManifest,
  status: ContainerStatus,
): Promise<void> {
  await client.ask('removeContainer', { containerId: status.id });
  unlinkLog(paths, { pod, name: status.metadata?.name ?? '', id: status.id });
  rmSync(status.logPath, { force: true });
  const request = { containerId: status.id, verbose: false };
  const after = await unlessGone(client.ask('containerStatus', request));
  assert.equal(after, undefined, 'a removed container has a status');
}
