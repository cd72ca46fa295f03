// Pods and containers as a kubelet would ask for them, with the least that a test has to say.

import { randomUUID } from 'node:crypto';
import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import {
  ContainerConfig,
  type ContainerStatus,
  ContainerStatusRequest,
  CreateContainerRequest,
  ExecSyncRequest,
  PodSandboxConfig,
  PodSandboxStatusRequest,
  PullImageRequest,
  RunPodSandboxRequest,
  StartContainerRequest,
} from '@cribus/contracts/gen/cri/v1/api.ts';
import type { Cri } from './cri.ts';
import type { Stack } from './stack.ts';

type PartialOf<C> = C extends { fromPartial(object: infer P): unknown } ? P : never;

/** A sandbox configuration with a log directory below the stack's root. */
export async function podConfig(
  stack: Stack,
  overrides: PartialOf<typeof PodSandboxConfig> & { name?: string } = {},
): Promise<PodSandboxConfig> {
  const uid = randomUUID();
  const { name = `pod-${uid.slice(0, 8)}`, ...rest } = overrides;
  const logDirectory = join(stack.root, 'pod-logs', uid);
  await mkdir(logDirectory, { recursive: true });
  return PodSandboxConfig.fromPartial({
    metadata: { name, uid, namespace: 'default', attempt: 0 },
    hostname: name,
    logDirectory,
    linux: { securityContext: { namespaceOptions: { pid: 1 } } },
    ...rest,
  });
}

/** A container configuration that runs a shell script. */
export function shellContainer(
  image: string,
  script: string,
  overrides: PartialOf<typeof ContainerConfig> & { name?: string } = {},
): ContainerConfig {
  const { name = 'main', ...rest } = overrides;
  return ContainerConfig.fromPartial({
    metadata: { name, attempt: 0 },
    image: { image },
    command: ['/bin/sh', '-c', script],
    logPath: `${name}.log`,
    linux: {},
    ...rest,
  });
}

export interface RunningPod {
  readonly podId: string;
  readonly containerId: string;
  readonly config: PodSandboxConfig;
  /** Empty for host network. */
  readonly ip: string;
  readonly logPath: string;
}

/** Runs a sandbox without containers. */
export async function runSandbox(
  stack: Stack,
  options: {
    readonly handler?: string;
    readonly pod?: PartialOf<typeof PodSandboxConfig> & { name?: string };
  } = {},
): Promise<{ readonly podSandboxId: string; readonly config: PodSandboxConfig }> {
  const config = await podConfig(stack, options.pod);
  const { podSandboxId } = await stack.cri.call(
    'runPodSandbox',
    RunPodSandboxRequest.fromPartial({ config, runtimeHandler: options.handler ?? '' }),
  );
  return { podSandboxId, config };
}

/** Runs a pod with one started container. */
export async function runPod(
  stack: Stack,
  options: {
    readonly image: string;
    readonly script: string;
    readonly handler?: string;
    readonly pod?: PartialOf<typeof PodSandboxConfig> & { name?: string };
    readonly container?: PartialOf<typeof ContainerConfig> & { name?: string };
  },
): Promise<RunningPod> {
  const { podSandboxId: podId, config } = await runSandbox(stack, options);
  const container = shellContainer(options.image, options.script, options.container);
  const containerId = await startContainer(stack.cri, podId, container, config);
  const status = await stack.cri.call(
    'podSandboxStatus',
    PodSandboxStatusRequest.fromPartial({ podSandboxId: podId }),
  );
  return {
    podId,
    containerId,
    config,
    ip: status.status?.network?.ip ?? '',
    logPath: join(config.logDirectory, container.logPath),
  };
}

/** Creates and starts a container; answers its id. */
export async function startContainer(
  cri: Cri,
  podSandboxId: string,
  config: ContainerConfig,
  sandboxConfig: PodSandboxConfig,
): Promise<string> {
  const { containerId } = await cri.call(
    'createContainer',
    CreateContainerRequest.fromPartial({ podSandboxId, config, sandboxConfig }),
  );
  await cri.call('startContainer', StartContainerRequest.fromPartial({ containerId }));
  return containerId;
}

export async function pull(cri: Cri, image: string): Promise<string> {
  const { imageRef } = await cri.call(
    'pullImage',
    PullImageRequest.fromPartial({ image: { image } }),
  );
  return imageRef;
}

export async function containerStatus(cri: Cri, containerId: string): Promise<ContainerStatus> {
  const { status } = await cri.call(
    'containerStatus',
    ContainerStatusRequest.fromPartial({ containerId }),
  );
  if (status === undefined) throw new Error(`container ${containerId} has no status`);
  return status;
}

/** The process of a container on the host, as its verbose status tells. */
export async function pidOf(cri: Cri, containerId: string): Promise<number> {
  const { info } = await cri.call('containerStatus', { containerId, verbose: true });
  return (JSON.parse(info['info'] ?? '') as { pid: number }).pid;
}

/** Runs a command in a container; output as text. */
export async function exec(
  cri: Cri,
  containerId: string,
  cmd: readonly string[],
  timeoutS = 20,
): Promise<{ exitCode: number; stdout: string; stderr: string }> {
  const answer = await cri.call(
    'execSync',
    ExecSyncRequest.fromPartial({ containerId, cmd: [...cmd], timeout: BigInt(timeoutS) }),
  );
  return {
    exitCode: answer.exitCode,
    stdout: Buffer.from(answer.stdout).toString(),
    stderr: Buffer.from(answer.stderr).toString(),
  };
}
