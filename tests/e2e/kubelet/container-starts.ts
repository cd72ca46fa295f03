// How a kubelet starts one container: image, creation, start, link of the log, postStart, and the
// back-off between attempts of what ends again and again.

import { join } from 'node:path';
import {
  type ContainerStatus,
  CreateContainerRequest,
  ExecSyncRequest,
  type PodSandboxConfig,
} from '@cribus/contracts/gen/cri/v1/api.ts';
import { linkLog } from './container-logs.ts';
import { ensureImage } from './ensure-image.ts';
import { type ContainerManifest, containerConfig, type PodManifest } from './manifest.ts';
import { GRACE_MIN_S, type NodeHands } from './node-hands.ts';
import { latest, type PodStatus } from './pod-actions.ts';

/** The kubelet's are 10 s and, with crashLoopBackOff.maxContainerRestartPeriod, 1 s at least. */
const BACKOFF_FIRST_MS = 500;
const BACKOFF_MAX_MS = 1_000;

export interface StartTarget {
  readonly pod: PodManifest;
  readonly container: ContainerManifest;
  readonly sandboxId: string;
  readonly sandboxConfig: PodSandboxConfig;
  readonly status: PodStatus;
}

export class ContainerStarts {
  readonly #hands: NodeHands;
  /** By pod uid and container name, as what `waiting` shows. */
  readonly #errors = new Map<string, string>();
  readonly #backoffs = new Map<string, number>();

  constructor(hands: NodeHands) {
    this.#hands = hands;
  }

  /** Why the container waits, if it does. */
  reasonOf(pod: PodManifest, name: string): string | undefined {
    return this.#errors.get(`${pod.uid}/${name}`);
  }

  forgetBackoffs(): void {
    this.#backoffs.clear();
  }

  async start(target: StartTarget): Promise<void> {
    const { client, paths, done } = this.#hands;
    const { pod, container, sandboxId, sandboxConfig, status } = target;
    const key = `${pod.uid}/${container.name}`;
    const last = latest(status, container.name);
    if (last !== undefined && this.#isInBackoff(key, last)) {
      this.#errors.set(key, 'CrashLoopBackOff');
      return;
    }
    const restarts = last?.annotations['io.kubernetes.container.restartCount'];
    const restartCount = restarts === undefined ? 0 : Number(restarts) + 1;
    let step = 'ErrImagePull';
    try {
      const imageId = await ensureImage(client, target);
      step = 'CreateContainerError';
      const looked = latest(status, container.targetContainerName ?? '');
      const config = containerConfig(paths, pod, {
        container,
        restartCount,
        imageId,
        ...(looked === undefined ? {} : { targetId: looked.id }),
      });
      const { containerId } = await client.ask(
        'createContainer',
        CreateContainerRequest.fromPartial({ podSandboxId: sandboxId, config, sandboxConfig }),
      );
      step = 'RunContainerError';
      await client.ask('startContainer', { containerId });
      done.push(`start ${pod.name}/${container.name} ${restartCount}`);
      const log = join(sandboxConfig.logDirectory, config.logPath);
      linkLog(paths, { pod, name: container.name, id: containerId }, log);
      step = 'PostStartHookError';
      if (container.postStart !== undefined) await this.#runHook(pod, container, containerId);
      this.#errors.delete(key);
    } catch (error) {
      this.#errors.set(key, step);
      done.push(`${step} ${pod.name}/${container.name}: ${String(error)}`);
    }
  }

  /** As in flowcontrol.Backoff: the first restart is at once, the next after 10 s, 20 s, … */
  #isInBackoff(key: string, last: ContainerStatus): boolean {
    const backoffMs = this.#backoffs.get(key);
    const sinceMs = Date.now() - Number(last.finishedAt / 1_000_000n);
    if (backoffMs !== undefined && sinceMs < backoffMs) return true;
    const next = backoffMs === undefined ? BACKOFF_FIRST_MS : backoffMs * 2;
    this.#backoffs.set(key, Math.min(next, BACKOFF_MAX_MS));
    return false;
  }

  async #runHook(pod: PodManifest, container: ContainerManifest, containerId: string) {
    const { client } = this.#hands;
    const cmd = [...(container.postStart ?? [])];
    const request = ExecSyncRequest.fromPartial({ containerId, cmd });
    const { exitCode } = await client.ask('execSync', request);
    if (exitCode === 0) return;
    const timeout = BigInt(Math.max(GRACE_MIN_S, pod.terminationGracePeriodS));
    await client.ask('stopContainer', { containerId, timeout });
    throw new Error(`FailedPostStartHook: ${exitCode}`);
  }
}
