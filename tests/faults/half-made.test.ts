// Owners killed at any moment while something is made or removed, and nobody left who asks again:
// what was half made is gone, what is listed can be removed, and nothing else is left.

import assert from 'node:assert/strict';
import { randomInt } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import {
  CreateContainerRequest,
  ListContainersRequest,
  ListPodSandboxRequest,
  RemoveContainerRequest,
  RemovePodSandboxRequest,
  RunPodSandboxRequest,
  StartContainerRequest,
  StopContainerRequest,
  StopPodSandboxRequest,
} from '@cribus/contracts/gen/cri/v1/api.ts';
import { after, before, describe, it } from 'mocha';
import { podConfig, shellContainer } from '../e2e/harness/pods.ts';
import { eventually } from '../e2e/harness/stack.ts';
import { repeat } from './harness/everything-works.ts';
import {
  type FaultNode,
  killAll,
  type PartName,
  recoveryMs,
  startFaultNode,
} from './harness/fault-node.ts';
import { assertSameFootprint, footprint, type Places, placesOf } from './harness/footprint.ts';

const ROUNDS = 5;
const PASSES_MAX = 3;
/** The gateway is killed with the owner: nobody answers a caller that waits longer. */
const CALLER_GIVES_UP_MS = 3_000;
/** A pod with a started container takes about so long. */
const DELAY_MS_MAX = { runc: 250, gvisor: 700 } as const;

describe('owners killed while things are made and removed', () => {
  let node: FaultNode;
  let places: Places;

  before(async () => {
    node = await startFaultNode();
    places = placesOf(node.stack.root);
  });
  after(async () => {
    await node?.destroy();
  });

  const pidsOf = (parts: readonly PartName[]) =>
    Promise.all(parts.map((part) => node.stack.pidOf(part)));

  async function make(handler: string, timeoutMs: number): Promise<void> {
    const { cri } = node.stack;
    const sandboxConfig = await podConfig(node.stack);
    const options = { timeoutMs };
    const { podSandboxId } = await cri.call(
      'runPodSandbox',
      RunPodSandboxRequest.fromPartial({ config: sandboxConfig, runtimeHandler: handler }),
      options,
    );
    const mounts = [{ containerPath: '/v', readonly: true, image: { image: node.image } }];
    const config = shellContainer(node.image, 'sleep 1000', { mounts });
    const { containerId } = await cri.call(
      'createContainer',
      CreateContainerRequest.fromPartial({ podSandboxId, config, sandboxConfig }),
      options,
    );
    const request = StartContainerRequest.fromPartial({ containerId });
    await cri.call('startContainer', request, options);
  }

  const listed = async () => {
    const { items } = await node.stack.cri.call(
      'listPodSandbox',
      ListPodSandboxRequest.fromPartial({}),
    );
    return items.map(({ id }) => id);
  };

  const remove = (podSandboxId: string, sinceMs: number) =>
    repeat(
      'RemovePodSandbox',
      async () => {
        const request = RemovePodSandboxRequest.fromPartial({ podSandboxId });
        await node.stack.cri.call('removePodSandbox', request);
      },
      sinceMs + 2 * recoveryMs(),
    );

  /**
   * Removes what is listed until nothing is left: an owner that was not killed finishes what it began
   * for a caller that is gone, so a pod may be listed only a while after.
   */
  async function removeAllUntilGone(before: readonly string[], sinceMs: number): Promise<void> {
    for (let pass = 1; ; pass += 1) {
      const ids = await eventually('pods are listed', listed);
      const fromMs = pass === 1 ? sinceMs : performance.now();
      await Promise.all(ids.map((id) => remove(id, fromMs)));
      try {
        await assertSameFootprint(places, before);
        return;
      } catch (error) {
        const more = await listed();
        if (more.length === 0 || pass === PASSES_MAX) throw error;
      }
    }
  }

  for (const handler of ['runc', 'gvisor'] as const) {
    const worker = `runtime-${handler}` as const;
    it(`nothing is left of ${handler} pods whose owners and gateway were killed at ${ROUNDS} random moments of their making`, async () => {
      const before = footprint(places);
      for (let round = 0; round < ROUNDS; round += 1) {
        const delayMs = randomInt(DELAY_MS_MAX[handler]);
        const owner = round % 2 === 0 ? 'sandbox-manager' : worker;
        const pids = await pidsOf([owner, 'cri-gateway']);
        const made = make(handler, CALLER_GIVES_UP_MS).then(
          () => 'made',
          (error: unknown) => String(error),
        );
        await sleep(delayMs);
        const sinceMs = killAll(pids);
        const outcome = await made;
        await removeAllUntilGone(before, sinceMs).catch((error: unknown) => {
          assert.fail(`${owner} after ${delayMs} ms (${outcome}): ${error}`);
        });
      }
    });
  }

  it('removing again is success, also when the owner was killed in the middle of it', async () => {
    const { cri } = node.stack;
    const before = footprint(places);
    for (let round = 0; round < ROUNDS; round += 1) {
      // The owner that the last round killed may only just be starting.
      await make('runc', 2 * recoveryMs());
      const [podSandboxId = ''] = await listed();
      const { containers } = await cri.call(
        'listContainers',
        ListContainersRequest.fromPartial({}),
      );
      const containerId = containers.find((one) => one.podSandboxId === podSandboxId)?.id ?? '';
      assert.notEqual(containerId, '');
      const owner = round % 2 === 0 ? 'sandbox-manager' : 'runtime-runc';
      const pids = await pidsOf([owner]);
      const delayMs = randomInt(120);
      const killing = sleep(delayMs).then(() => killAll(pids));
      await remove(podSandboxId, performance.now());
      const sinceMs = await killing;
      await remove(podSandboxId, sinceMs);
      await cri.call('stopPodSandbox', StopPodSandboxRequest.fromPartial({ podSandboxId }));
      await cri.call('stopContainer', StopContainerRequest.fromPartial({ containerId }));
      await cri.call('removeContainer', RemoveContainerRequest.fromPartial({ containerId }));
      assert.deepEqual(await listed(), []);
      await assertSameFootprint(places, before).catch((error: unknown) => {
        assert.fail(`${owner} after ${delayMs} ms: ${error}`);
      });
    }
  });
});
