// Redis emptied, a worker away and the gateway new: what is known must come from the owners' records,
// and no list may be shorter for it.

import assert from 'node:assert/strict';
import { setTimeout as sleep } from 'node:timers/promises';
import {
  ListContainersRequest,
  ListPodSandboxRequest,
  RunPodSandboxRequest,
  StatusRequest,
} from '@cribus/contracts/gen/cri/v1/api.ts';
import { after, before, describe, it } from 'mocha';
import { exec, podConfig } from '../e2e/harness/pods.ts';
import { eventually } from '../e2e/harness/stack.ts';
import { commandOf, type ServiceByHand, startByHand } from './harness/by-hand.ts';
import {
  assertLogIsWhole,
  assertSameProcess,
  type CountingPod,
  startCountingPod,
} from './harness/counting-pod.ts';
import { assertEverythingWorks } from './harness/everything-works.ts';
import { type FaultNode, killAll, startFaultNode, upAgain, upPid } from './harness/fault-node.ts';
import { observe } from './harness/observer.ts';
import { flushAll } from './harness/redis.ts';

/** Longer than the gateway waits for a silent owner before it reads that owner's records. */
const SILENCE_MS = 6_000;

describe('FLUSHALL, the runc worker stopped and the gateway restarted', () => {
  let node: FaultNode;
  let pods: readonly CountingPod[];
  let gateway: ServiceByHand | undefined;

  before(async () => {
    node = await startFaultNode();
    const { stack, image } = node;
    pods = await Promise.all(
      ['runc', 'gvisor'].map((handler) => startCountingPod(stack, { image, handler })),
    );
  });
  after(async () => {
    await gateway?.end('SIGKILL');
    await node?.destroy();
  });

  it('with the runc worker gone for good no list is shorter, and its pods stay listed until it is back', async () => {
    const { stack } = node;
    const runc = pods[0];
    assert.ok(runc !== undefined);
    const command = await commandOf(stack, 'cri-gateway');
    const [worker, gatewayPid] = [
      await stack.pidOf('runtime-runc'),
      await stack.pidOf('cri-gateway'),
    ];
    const observer = observe(stack.cri.endpoint, pods);
    killAll([await upPid(stack)]);
    killAll([worker]);
    assert.ok((await flushAll(stack)) > 0, 'Redis held nothing');
    killAll([gatewayPid]);
    gateway = startByHand(stack, command);

    const answersBefore = performance.now();
    await eventually('lists are answered without the worker', () => listed(node), SILENCE_MS);
    console.log(`      lists after ${Math.round(performance.now() - answersBefore)} ms`);
    await sleep(1_000);
    await assert.rejects(
      exec(stack.cri, runc.containerId, ['true']),
      /UNAVAILABLE: handler "runc" is unavailable|UNAVAILABLE: runtime\.runc does not answer/,
    );

    await gateway.end('SIGKILL');
    gateway = undefined;
    const sinceMs = performance.now();
    await upAgain(stack);
    await assertEverythingWorks(node, { pods, sinceMs });
    assert.deepEqual((await observer.stop()).wrong, []);
    for (const pod of pods) {
      await assertSameProcess(stack, pod);
      await assertLogIsWhole(pod);
    }
  });

  it('with the runc worker hanging no list is shorter, and what only it can do is refused until it goes on', async () => {
    const { stack } = node;
    const runc = pods[0];
    assert.ok(runc !== undefined);
    const worker = await stack.pidOf('runtime-runc');
    const gatewayPid = await stack.pidOf('cri-gateway');
    const observer = observe(stack.cri.endpoint, pods);
    process.kill(worker, 'SIGSTOP');
    try {
      assert.ok((await flushAll(stack)) > 0, 'Redis held nothing');
      killAll([gatewayPid]);
      await eventually('lists are answered without the worker', () => listed(node), SILENCE_MS);
      await eventually('Status says that the worker is silent', () => saysSilent(node), SILENCE_MS);
      const config = await podConfig(stack);
      const request = RunPodSandboxRequest.fromPartial({ config, runtimeHandler: 'runc' });
      await assert.rejects(
        stack.cri.call('runPodSandbox', request, { timeoutMs: 1_000 }),
        /UNAVAILABLE: handler "runc" is unavailable: its worker has not been heard from/,
      );
    } finally {
      process.kill(worker, 'SIGCONT');
    }
    await assertEverythingWorks(node, { pods, sinceMs: performance.now() });
    assert.deepEqual((await observer.stop()).wrong, []);
    for (const pod of pods) {
      await assertSameProcess(stack, pod);
      await assertLogIsWhole(pod);
    }
  });
});

/** True once both lists are answered; that they are whole is watched all the time. */
async function listed({ stack }: FaultNode): Promise<boolean> {
  await stack.cri.call('listPodSandbox', ListPodSandboxRequest.fromPartial({}), {
    timeoutMs: 1_000,
  });
  await stack.cri.call('listContainers', ListContainersRequest.fromPartial({}), {
    timeoutMs: 1_000,
  });
  return true;
}

async function saysSilent({ stack }: FaultNode): Promise<boolean> {
  const answer = await stack.cri.call('status', StatusRequest.fromPartial({}));
  const ready = answer.status?.conditions.find(({ type }) => type === 'RuntimeReady');
  const handlers = answer.runtimeHandlers.map(({ name }) => name);
  return (
    ready?.status === false &&
    ready.message.includes('handler "runc" is unavailable') &&
    !handlers.includes('runc') &&
    handlers.includes('gvisor')
  );
}
