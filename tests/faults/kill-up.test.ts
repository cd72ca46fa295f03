// kill -9 of `cribus up` itself, of all parts at once, and of both: a new `up` adopts or replaces
// what it finds, and the pods have not noticed.

import assert from 'node:assert/strict';
import { after, before, describe, it } from 'mocha';
import {
  assertLogIsWhole,
  assertSameProcess,
  type CountingPod,
  startCountingPod,
} from './harness/counting-pod.ts';
import { assertEverythingWorks } from './harness/everything-works.ts';
import { type FaultNode, killAll, startFaultNode, upAgain, upPid } from './harness/fault-node.ts';
import { observe } from './harness/observer.ts';

describe('kill -9 of `cribus up` and of all parts while a runc pod and a gVisor pod run', () => {
  let node: FaultNode;
  let pods: readonly CountingPod[];

  before(async () => {
    node = await startFaultNode();
    const { stack, image } = node;
    pods = await Promise.all(
      ['runc', 'gvisor'].map((handler) => startCountingPod(stack, { image, handler })),
    );
  });
  after(async () => {
    await node?.destroy();
  });

  const partPids = async () => (await node.stack.status()).parts.map(({ pid }) => pid);
  const podsAreUntouched = async () => {
    for (const pod of pods) {
      await assertSameProcess(node.stack, pod);
      await assertLogIsWhole(pod);
    }
  };

  it('after kill -9 of `cribus up` its parts go on, and a new `up` adopts every one of them', async () => {
    const { stack } = node;
    const before = await stack.status();
    const observer = observe(stack.cri.endpoint, pods);
    killAll([await upPid(stack)]);
    const sinceMs = performance.now();
    const said = await upAgain(stack);
    await assertEverythingWorks(node, { pods, sinceMs });
    const { wrong, errors } = await observer.stop();
    assert.deepEqual({ wrong, errors }, { wrong: [], errors: {} });
    assert.match(said, /Found running, and kept: every part/);
    const pidsOf = ({ parts }: typeof before) =>
      Object.fromEntries(parts.map(({ name, pid }) => [name, pid]));
    assert.deepEqual(pidsOf(await stack.status()), pidsOf(before));
    await podsAreUntouched();
  });

  it('an `up` that adopted parts of an earlier one restarts them as its own', async () => {
    const { stack } = node;
    const observer = observe(stack.cri.endpoint, pods);
    const sinceMs = killAll([await stack.pidOf('sandbox-manager')]);
    await assertEverythingWorks(node, { pods, sinceMs });
    assert.deepEqual((await observer.stop()).wrong, []);
  });

  it('after kill -9 of all seven parts at once all calls work within 5 s, no answer is wrong, and pods keep pid, IP and every log line', async () => {
    const { stack } = node;
    const pids = await partPids();
    assert.equal(pids.length, 7);
    const observer = observe(stack.cri.endpoint, pods);
    const sinceMs = killAll(pids);
    const tookMs = await assertEverythingWorks(node, { pods, sinceMs });
    assert.deepEqual((await observer.stop()).wrong, []);
    await podsAreUntouched();
    console.log(`      ${Math.round(tookMs)} ms`);
  });

  it('after kill -9 of `cribus up` and all its parts a new `up` serves everything within 5 s, on the ports of before, and pods keep pid, IP and every log line', async () => {
    const { stack } = node;
    const pids = await partPids();
    const observer = observe(stack.cri.endpoint, pods);
    killAll([await upPid(stack), ...pids]);
    const sinceMs = performance.now();
    const [said, tookMs] = await Promise.all([
      upAgain(stack),
      assertEverythingWorks(node, { pods, sinceMs }),
    ]);
    assert.doesNotMatch(said, /chose anew/);
    assert.deepEqual((await observer.stop()).wrong, []);
    await podsAreUntouched();
    console.log(`      ${Math.round(tookMs)} ms`);
  });
});
