// The annotations that engines read to learn what a process is in a pod (gVisor, Kata).

import type {
  ContainerConfig,
  LinuxContainerResources,
  PodSandboxConfig,
} from '@cribus/contracts/gen/cri/v1/api.ts';

/** gVisor: runsc/specutils/cri.go; Kata: its virtcontainers annotations. */
const PREFIX = 'io.kubernetes.cri.';

interface SandboxNames {
  readonly sandboxId: string;
  readonly sandbox: PodSandboxConfig;
}

function sandboxNames({ sandboxId, sandbox }: SandboxNames): Record<string, string> {
  return {
    [`${PREFIX}sandbox-id`]: sandboxId,
    [`${PREFIX}sandbox-name`]: sandbox.metadata?.name ?? '',
    [`${PREFIX}sandbox-namespace`]: sandbox.metadata?.namespace ?? '',
    [`${PREFIX}sandbox-uid`]: sandbox.metadata?.uid ?? '',
  };
}

/** Ours win over what was passed through: a pod must not name itself into another sandbox. */
export function containerAnnotations(
  input: SandboxNames & {
    readonly container: ContainerConfig;
    readonly annotations: Readonly<Record<string, string>>;
  },
): Record<string, string> {
  const image = input.container.image;
  return {
    ...input.annotations,
    [`${PREFIX}container-type`]: 'container',
    [`${PREFIX}container-name`]: input.container.metadata?.name ?? '',
    [`${PREFIX}image-name`]: image?.userSpecifiedImage || image?.image || '',
    ...sandboxNames(input),
  };
}

/** Also the pod's resources, from which a sandbox that is a virtual machine takes its size. */
export function sandboxAnnotations(
  input: SandboxNames & { readonly annotations: Readonly<Record<string, string>> },
): Record<string, string> {
  return {
    ...input.annotations,
    [`${PREFIX}container-type`]: 'sandbox',
    [`${PREFIX}sandbox-log-directory`]: input.sandbox.logDirectory,
    ...sandboxSizes(input.sandbox.linux?.resources),
    ...sandboxNames(input),
  };
}

function sandboxSizes(resources: LinuxContainerResources | undefined): Record<string, string> {
  return {
    [`${PREFIX}sandbox-cpu-period`]: String(resources?.cpuPeriod ?? 0n),
    [`${PREFIX}sandbox-cpu-quota`]: String(resources?.cpuQuota ?? 0n),
    [`${PREFIX}sandbox-cpu-shares`]: String(resources?.cpuShares ?? 0n),
    [`${PREFIX}sandbox-memory`]: String(resources?.memoryLimitInBytes ?? 0n),
  };
}
