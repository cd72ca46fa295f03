// The work that is timed: a pod with one container, from nothing to running and back; a command in it;
// and the reads of a kubelet.

import { randomUUID } from 'node:crypto';
import {
  ContainerConfig,
  ContainerStatusRequest,
  CreateContainerRequest,
  ExecSyncRequest,
  ListContainersRequest,
  ListPodSandboxRequest,
  PodSandboxConfig,
  PodSandboxStatusRequest,
  RemovePodSandboxRequest,
  RunPodSandboxRequest,
  StartContainerRequest,
  StopPodSandboxRequest,
} from '@cribus/contracts/gen/cri/v1/api.ts';
import { type Subject, timed } from './subject.ts';

export interface BenchPod {
  readonly podSandboxId: string;
  readonly containerId: string;
}

export interface PodTimes {
  readonly pod: BenchPod;
  readonly runMs: number;
  readonly createMs: number;
  readonly startMs: number;
  readonly totalMs: number;
}

/** RunPodSandbox, CreateContainer, StartContainer. */
export async function startPod(subject: Subject): Promise<PodTimes> {
  const uid = randomUUID();
  const sandboxConfig = PodSandboxConfig.fromPartial({
    metadata: { name: `bench-${uid}`, uid, namespace: 'bench', attempt: 0 },
    hostname: 'bench',
    labels: { app: 'bench' },
    annotations: { 'cribus.test/purpose': 'bench' },
    linux: {
      cgroupParent: subject.cgroupParent,
      securityContext: { namespaceOptions: { pid: 1 } },
    },
  });
  const config = ContainerConfig.fromPartial({
    metadata: { name: 'main', attempt: 0 },
    image: { image: subject.image },
    command: ['/bin/sleep', '1000000'],
    linux: {},
  });
  const { cri } = subject;
  let podSandboxId = '';
  let containerId = '';
  const runMs = await timed(async () => {
    const request = RunPodSandboxRequest.fromPartial({ config: sandboxConfig });
    podSandboxId = (await cri.call('runPodSandbox', request)).podSandboxId;
  });
  const createMs = await timed(async () => {
    const request = CreateContainerRequest.fromPartial({ podSandboxId, config, sandboxConfig });
    containerId = (await cri.call('createContainer', request)).containerId;
  });
  const startMs = await timed(() =>
    cri.call('startContainer', StartContainerRequest.fromPartial({ containerId })),
  );
  const pod = { podSandboxId, containerId };
  return { pod, runMs, createMs, startMs, totalMs: runMs + createMs + startMs };
}

/** StopPodSandbox, which kills the container, and RemovePodSandbox. */
export async function stopPod(subject: Subject, podSandboxId: string): Promise<void> {
  const { cri } = subject;
  await cri.call('stopPodSandbox', StopPodSandboxRequest.fromPartial({ podSandboxId }));
  await cri.call('removePodSandbox', RemovePodSandboxRequest.fromPartial({ podSandboxId }));
}

/** Every pod that it has. */
export async function removeAll(subject: Subject): Promise<void> {
  const { items } = await subject.cri.call('listPodSandbox', ListPodSandboxRequest.fromPartial({}));
  for (const { id } of items) await stopPod(subject, id);
}

export async function execTrue(subject: Subject, containerId: string): Promise<void> {
  const request = ExecSyncRequest.fromPartial({ containerId, cmd: ['/bin/true'], timeout: 10n });
  const { exitCode } = await subject.cri.call('execSync', request);
  if (exitCode !== 0) throw new Error(`${subject.name}: true ended with ${exitCode}`);
}

/** The reads, by name. */
export const READS: Readonly<
  Record<string, (subject: Subject, pod: BenchPod) => Promise<unknown>>
> = {
  ListContainers: ({ cri }) => cri.call('listContainers', ListContainersRequest.fromPartial({})),
  ListPodSandbox: ({ cri }) => cri.call('listPodSandbox', ListPodSandboxRequest.fromPartial({})),
  ContainerStatus: ({ cri }, { containerId }) =>
    cri.call('containerStatus', ContainerStatusRequest.fromPartial({ containerId })),
  PodSandboxStatus: ({ cri }, { podSandboxId }) =>
    cri.call('podSandboxStatus', PodSandboxStatusRequest.fromPartial({ podSandboxId })),
};
