// Requests as a real kubelet sent them (fixtures/kubelet), made playable here: host paths below a
// directory of the test, the image and the cgroup parent of the test.

import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import {
  CreateContainerRequest,
  PodSandboxStatusRequest,
  RunPodSandboxRequest,
} from '@cribus/contracts/gen/cri/v1/api.ts';
import type { RunningPod } from './pods.ts';
import type { Suite } from './suite.ts';

export interface Replacements {
  /** Holds what the kubelet had below /var/lib and /var/log. */
  readonly directory: string;
  /** Instead of /kubepods. */
  readonly cgroup: string;
  readonly imageId: string;
  readonly userSpecifiedImage: string;
}

export interface Recorded {
  readonly run: RunPodSandboxRequest;
  readonly create: CreateContainerRequest;
}

/** A recorded pod and its container; each host path is made, as the kubelet does before it asks. */
export function recordedPod(name: string, replacements: Replacements): Recorded {
  const file = new URL(`../fixtures/kubelet/${name}.json`, import.meta.url);
  const parsed: unknown = JSON.parse(readFileSync(file, 'utf8'), (key, value: unknown) => {
    if (key === 'cgroup_parent') return String(value).replace('/kubepods', replacements.cgroup);
    const isPath = key === 'host_path' || key === 'log_directory' || key === 'localhost_ref';
    return isPath && value !== '' ? join(replacements.directory, String(value)) : value;
  });
  const recorded = parsed as { readonly runPodSandbox: object; readonly createContainer: object };
  const run = RunPodSandboxRequest.fromJSON(recorded.runPodSandbox);
  const create = CreateContainerRequest.fromJSON(recorded.createContainer);
  const config = create.config;
  if (config?.image === undefined) throw new Error(`${name} has no image`);
  config.image.image = replacements.imageId;
  config.image.userSpecifiedImage = replacements.userSpecifiedImage;
  for (const { hostPath } of config.mounts) if (hostPath !== '') makeHostPath(hostPath, run);
  mkdirSync(run.config?.logDirectory ?? '', { recursive: true });
  return { run, create };
}

function makeHostPath(path: string, run: RunPodSandboxRequest): void {
  const isFile = path.endsWith('/etc-hosts') || path.includes('/containers/');
  mkdirSync(isFile ? dirname(path) : path, { recursive: true, mode: 0o777 });
  if (!isFile) return;
  const hosts = `# Kubernetes-managed hosts file.\n127.0.0.1\tlocalhost\n10.9.9.9\t${run.config?.hostname}\n`;
  writeFileSync(path, path.endsWith('/etc-hosts') ? hosts : '');
}

/** Walks the calls that a kubelet makes until a container runs. */
export async function play(suite: Suite, recorded: Recorded): Promise<RunningPod> {
  const { cri } = suite;
  const { podSandboxId } = await cri.call('runPodSandbox', recorded.run);
  const { status } = await cri.call(
    'podSandboxStatus',
    PodSandboxStatusRequest.fromPartial({ podSandboxId }),
  );
  const { containerId } = await cri.call(
    'createContainer',
    CreateContainerRequest.fromPartial({ ...recorded.create, podSandboxId }),
  );
  await cri.call('startContainer', { containerId });
  const { config } = recorded.run;
  if (config === undefined) throw new Error('the recorded pod has no configuration');
  return {
    podId: podSandboxId,
    containerId,
    config,
    ip: status?.network?.ip ?? '',
    logPath: join(config.logDirectory, recorded.create.config?.logPath ?? ''),
  };
}
