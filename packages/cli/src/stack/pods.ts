// Stopping and removing the pods of a stack, through its own gateway.

import { isFailure } from '@cribus/contracts/failure.ts';
import * as cri from '@cribus/contracts/gen/cri/v1/api.ts';
import { listDirectory } from '@cribus/host/files.ts';
import { type CriClient, createCriClient } from '../cri-client.ts';
import type { Stack } from './open-stack.ts';

/** Removed side by side; each is a handful of processes for a moment. */
const PARALLEL_MAX = 8;
const STOP_TIMEOUT_MS = 150_000;

export interface Removal {
  readonly removed: number;
  /** One sentence for each pod that could not be removed. */
  readonly problems: readonly string[];
}

/** True if a sandbox record is on disk, whether or not the stack is up. */
export async function hasPods(stack: Stack): Promise<boolean> {
  return (await listDirectory(stack.paths.sandboxes)).length > 0;
}

/** How many pods the gateway lists. */
export async function countPods(socket: string, signal: AbortSignal): Promise<number> {
  return withClient(socket, async (client) => (await listPods(client, signal)).length);
}

/** Stops and removes every pod; goes on with the others when one can't be removed. */
export async function removePods(socket: string, signal: AbortSignal): Promise<Removal> {
  return withClient(socket, async (client) => {
    const pods = await listPods(client, signal);
    const problems: string[] = [];
    let removed = 0;
    const next = pods.values();
    const work = async () => {
      for (const pod of next) {
        if (signal.aborted) return;
        const problem = await removeOne(client, pod, signal);
        if (problem === undefined) removed += 1;
        else problems.push(problem);
      }
    };
    await Promise.all(Array.from({ length: PARALLEL_MAX }, work));
    return { removed, problems };
  });
}

async function removeOne(
  client: CriClient,
  pod: cri.PodSandbox,
  signal: AbortSignal,
): Promise<string | undefined> {
  const podSandboxId = pod.id;
  const options = { timeoutMs: STOP_TIMEOUT_MS, signal };
  try {
    const stop = cri.StopPodSandboxRequest.fromPartial({ podSandboxId });
    await client.call('stopPodSandbox', stop, options);
    const remove = cri.RemovePodSandboxRequest.fromPartial({ podSandboxId });
    await client.call('removePodSandbox', remove, options);
    return undefined;
  } catch (error) {
    if (!isFailure(error)) throw error;
    return `pod ${pod.metadata?.name ?? ''} (${podSandboxId.slice(0, 13)}): ${error.message}`;
  }
}

async function listPods(client: CriClient, signal: AbortSignal): Promise<cri.PodSandbox[]> {
  const request = cri.ListPodSandboxRequest.fromPartial({});
  return (await client.call('listPodSandbox', request, { signal })).items;
}

async function withClient<T>(socket: string, work: (client: CriClient) => Promise<T>): Promise<T> {
  const client = createCriClient(socket);
  try {
    return await work(client);
  } finally {
    client.close();
  }
}
