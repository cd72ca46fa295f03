// Every kind of call, each repeated as its caller would until it is answered well.

import assert from 'node:assert/strict';
import { setTimeout as sleep } from 'node:timers/promises';
import {
  ContainerState,
  CreateContainerRequest,
  ListContainersRequest,
  ListPodSandboxRequest,
  RemovePodSandboxRequest,
  RunPodSandboxRequest,
  StartContainerRequest,
  StatusRequest,
} from '@cribus/contracts/gen/cri/v1/api.ts';
import { containerStatus, exec, podConfig, pull, shellContainer } from '../../e2e/harness/pods.ts';
import type { CountingPod } from './counting-pod.ts';
import { type FaultNode, recoveryMs } from './fault-node.ts';

const RETRY_MS = 20;

/**
 * Fails unless lists, statuses, exec in each pod, a new pod of each handler and a pull of a new
 * image work within five seconds of `sinceMs`. Removes the new pods; answers how long it took.
 */
export async function assertEverythingWorks(
  node: FaultNode,
  options: { readonly pods: readonly CountingPod[]; readonly sinceMs: number },
): Promise<number> {
  const { cri } = node.stack;
  const { pods, sinceMs } = options;
  const deadlineMs = sinceMs + recoveryMs();
  const untilAnswered = (what: string, call: () => Promise<void>) => repeat(what, call, deadlineMs);
  const newPods: string[] = [];
  await Promise.all([
    untilAnswered('Status', () => assertReady(node)),
    untilAnswered('ListPodSandbox', async () => {
      await cri.call('listPodSandbox', ListPodSandboxRequest.fromPartial({}));
    }),
    untilAnswered('ListContainers', async () => {
      await cri.call('listContainers', ListContainersRequest.fromPartial({}));
    }),
    ...pods.map(({ containerId, handler }) =>
      untilAnswered(`ExecSync in ${handler}`, async () => {
        const { stdout, exitCode } = await exec(cri, containerId, ['echo', 'well'], 5);
        assert.deepEqual({ stdout, exitCode }, { stdout: 'well\n', exitCode: 0 });
      }),
    ),
    ...pods.map(async ({ handler }) => {
      newPods.push(await runNewPod(node, handler, untilAnswered));
    }),
    untilAnswered('PullImage', async () => {
      await pull(cri, node.freshImage());
    }),
  ]);
  const tookMs = performance.now() - sinceMs;
  for (const podSandboxId of newPods) {
    await cri.call('removePodSandbox', RemovePodSandboxRequest.fromPartial({ podSandboxId }));
  }
  return tookMs;
}

async function assertReady({ stack }: FaultNode): Promise<void> {
  const answer = await stack.cri.call('status', StatusRequest.fromPartial({}));
  for (const { type, status, message } of answer.status?.conditions ?? []) {
    assert.ok(status, `${type}: ${message}`);
  }
  const handlers = answer.runtimeHandlers.map(({ name }) => name);
  assert.deepEqual(handlers, ['', 'runc', 'crun', 'gvisor']);
}

async function runNewPod(
  { stack, image }: FaultNode,
  handler: string,
  untilAnswered: (what: string, call: () => Promise<void>) => Promise<void>,
): Promise<string> {
  const { cri } = stack;
  const config = await podConfig(stack);
  let podSandboxId = '';
  let containerId = '';
  await untilAnswered(`RunPodSandbox of ${handler}`, async () => {
    const request = RunPodSandboxRequest.fromPartial({ config, runtimeHandler: handler });
    ({ podSandboxId } = await cri.call('runPodSandbox', request));
  });
  const container = shellContainer(image, 'sleep 1000');
  await untilAnswered(`CreateContainer of ${handler}`, async () => {
    const request = CreateContainerRequest.fromPartial({
      podSandboxId,
      config: container,
      sandboxConfig: config,
    });
    ({ containerId } = await cri.call('createContainer', request));
  });
  await untilAnswered(`StartContainer of ${handler}`, async () => {
    const started = await containerStatus(cri, containerId);
    if (started.state === ContainerState.CONTAINER_RUNNING) return;
    await cri.call('startContainer', StartContainerRequest.fromPartial({ containerId }));
  });
  return podSandboxId;
}

/** As a kubelet does it: the same call again until it is answered. */
export async function repeat(
  what: string,
  call: () => Promise<void>,
  deadlineMs: number,
): Promise<void> {
  const said: string[] = [];
  for (;;) {
    try {
      await call();
      assert.ok(
        performance.now() <= deadlineMs,
        `${what} was answered too late (${said.join('; ')})`,
      );
      return;
    } catch (error) {
      const message = error instanceof Error ? error.message : String(error);
      if (said.at(-1) !== message && said.length < 10) said.push(message);
      if (performance.now() > deadlineMs) {
        assert.fail(`${what} does not work in time: ${said.join('; ')}`);
      }
      await sleep(RETRY_MS);
    }
  }
}
