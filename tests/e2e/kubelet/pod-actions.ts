// What a kubelet decides from a pod and what the runtime says of it, without doing anything: whether
// the sandbox has to be made again, which containers are started and killed, and what the API shows.
// The rules are those of the kubelet's kuberuntime_manager.go (computePodActions, podSandboxChanged).

import {
  ContainerState,
  type ContainerStatus,
  NamespaceMode,
  PodSandboxState,
  type PodSandboxStatus,
} from '@cribus/contracts/gen/cri/v1/api.ts';
import { type ContainerManifest, hashOf, type PodManifest } from './manifest.ts';

export interface PodStatus {
  /** Newest first. */
  readonly sandboxes: readonly PodSandboxStatus[];
  /** Newest first. */
  readonly containers: readonly ContainerStatus[];
  /** When the runtime answered or told it; what is older never replaces what is younger. */
  readonly timestamp: bigint;
}

export const NO_STATUS: PodStatus = { sandboxes: [], containers: [], timestamp: 0n };

/** What the kubelet knows of containers besides their statuses, by container id. */
export interface ProbeResults {
  readonly failedLiveness: ReadonlySet<string>;
  readonly failedStartup: ReadonlySet<string>;
  readonly started: ReadonlySet<string>;
}

export interface PodActions {
  readonly killPod: boolean;
  /** Why the sandbox is made again. */
  readonly createSandbox: string | undefined;
  readonly attempt: number;
  readonly sandboxId: string;
  readonly start: readonly ContainerManifest[];
  readonly kill: readonly { readonly status: ContainerStatus; readonly why: string }[];
}

/** The newest container of the name. */
export function latest(status: PodStatus, name: string): ContainerStatus | undefined {
  return status.containers.find(({ metadata }) => metadata?.name === name);
}

export function isRunning(status: ContainerStatus | undefined): status is ContainerStatus & {
  readonly state: typeof ContainerState.CONTAINER_RUNNING;
} {
  return status?.state === ContainerState.CONTAINER_RUNNING;
}

export function isSidecar(container: ContainerManifest): boolean {
  return container.restartPolicy === 'Always';
}

/** Why the whole pod is made again, if it is. */
export function sandboxChanged(pod: PodManifest, status: PodStatus): string | undefined {
  const [newest] = status.sandboxes;
  if (newest === undefined) return 'there is none';
  const ready = status.sandboxes.filter(({ state }) => state === PodSandboxState.SANDBOX_READY);
  if (ready.length > 1) return 'several sandboxes are ready';
  if (newest.state !== PodSandboxState.SANDBOX_READY) return 'it is not ready';
  const network = newest.linux?.namespaces?.options?.network;
  const wanted = pod.hostNetwork ? NamespaceMode.NODE : NamespaceMode.POD;
  if (network !== wanted) return 'its network namespace is another than wanted';
  const hasNoAddress = newest.network !== undefined && newest.network.ip === '';
  return !pod.hostNetwork && hasNoAddress ? 'it has no address' : undefined;
}

export function podActions(pod: PodManifest, status: PodStatus, probes: ProbeResults): PodActions {
  const [newest] = status.sandboxes;
  const attempt = newest?.metadata?.attempt ?? 0;
  const none = { killPod: false, createSandbox: undefined, start: [], kill: [], attempt };
  const changed = sandboxChanged(pod, status);
  if (changed !== undefined) {
    const anew = { ...none, attempt: newest === undefined ? 0 : attempt + 1, sandboxId: '' };
    if (isFinished(pod, status)) return { ...anew, killPod: newest !== undefined };
    const hasRun = status.containers.length > 0;
    if (pod.restartPolicy === 'Never' && newest !== undefined && hasRun)
      return { ...anew, killPod: true };
    const [firstInit] = pod.initContainers;
    const start = firstInit === undefined ? pod.containers.filter(wants(pod, status)) : [firstInit];
    return { ...anew, killPod: newest !== undefined, createSandbox: changed, start };
  }
  const present = { ...none, sandboxId: newest?.id ?? '' };
  if (isFinished(pod, status)) return { ...present, killPod: true };
  const ephemeral = pod.ephemeralContainers.filter(
    ({ name }) => latest(status, name) === undefined,
  );
  const init = initActions(pod, status, probes);
  if (init === 'failed') return { ...present, killPod: true };
  if (!init.done) return { ...present, start: [...ephemeral, ...init.start], kill: init.kill };
  const kill = [...init.kill, ...unwanted(pod.containers, status, probes)];
  const killed = new Set(kill.map((one) => one.status.id));
  const start = pod.containers.filter((container) => {
    const last = latest(status, container.name);
    return wants(pod, status)(container) && !killed.has(last?.id ?? '');
  });
  return { ...present, start: [...ephemeral, ...init.start, ...start], kill };
}

/** Whether all that is to end has ended, for good. */
export function isFinished(pod: PodManifest, status: PodStatus): boolean {
  const hasRun = pod.containers.some(({ name }) => latest(status, name) !== undefined);
  return hasRun && pod.containers.every((container) => !wants(pod, status, 'running')(container));
}

/** Whether a container has to be started: no, if it runs or has ended as its policy wishes. */
function wants(pod: PodManifest, status: PodStatus, running?: 'running') {
  return ({ name }: ContainerManifest): boolean => {
    const last = latest(status, name);
    if (last === undefined) return true;
    if (isRunning(last)) return running !== undefined;
    if (last.state !== ContainerState.CONTAINER_EXITED) return true;
    if (pod.restartPolicy === 'Never') return false;
    return pod.restartPolicy === 'Always' || last.exitCode !== 0;
  };
}

function unwanted(
  containers: readonly ContainerManifest[],
  status: PodStatus,
  probes: ProbeResults,
): PodActions['kill'] {
  return containers.flatMap((container) => {
    const last = latest(status, container.name);
    if (!isRunning(last)) return [];
    const hash = last.annotations['io.kubernetes.container.hash'];
    if (hash !== hashOf(container)) return [{ status: last, why: 'its definition changed' }];
    if (probes.failedStartup.has(last.id)) return [{ status: last, why: 'startup probe failed' }];
    if (probes.failedLiveness.has(last.id)) return [{ status: last, why: 'liveness probe failed' }];
    return [];
  });
}

function initActions(
  pod: PodManifest,
  status: PodStatus,
  probes: ProbeResults,
): 'failed' | { done: boolean; start: ContainerManifest[]; kill: PodActions['kill'] } {
  const sidecars = pod.initContainers.filter(isSidecar);
  const kill = unwanted(sidecars, status, probes);
  const dead = sidecars.filter(({ name }) => {
    const last = latest(status, name);
    return last !== undefined && !isRunning(last);
  });
  const begun = pod.containers.some(({ name }) => latest(status, name) !== undefined);
  if (begun) return { done: true, start: dead, kill };
  const start = [...dead];
  for (const container of pod.initContainers) {
    const last = latest(status, container.name);
    if (isSidecar(container)) {
      if (last === undefined) return { done: false, start: [...start, container], kill };
      const isUp =
        isRunning(last) && (container.startup === undefined || probes.started.has(last.id));
      if (!isUp) return { done: false, start, kill };
      continue;
    }
    if (last === undefined) return { done: false, start: [...start, container], kill };
    if (isRunning(last)) return { done: false, start, kill };
    if (last.state === ContainerState.CONTAINER_EXITED && last.exitCode === 0) continue;
    if (pod.restartPolicy === 'Never') return 'failed';
    return { done: false, start: [...start, container], kill };
  }
  return { done: true, start, kill };
}
