// kill -9 of each part in turn while pods run: everything works again within five seconds, nothing
// wrong is answered in between, and the pods have not noticed.

import assert from 'node:assert/strict';
import { after, before, describe, it } from 'mocha';
import {
  assertLogIsWhole,
  assertSameProcess,
  type CountingPod,
  startCountingPod,
} from './harness/counting-pod.ts';
import { assertEverythingWorks } from './harness/everything-works.ts';
import { type FaultNode, killPart, PARTS, startFaultNode } from './harness/fault-node.ts';
import { observe } from './harness/observer.ts';

describe('kill -9 of one part while a runc pod and a gVisor pod run', () => {
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

  for (const part of PARTS) {
    it(`after kill -9 of ${part} all calls work within 5 s, no answer is wrong, and pods keep pid, IP and every log line`, async () => {
      const { stack } = node;
      const observer = observe(stack.cri.endpoint, pods);
      const sinceMs = await killPart(stack, part);
      const tookMs = await assertEverythingWorks(node, { pods, sinceMs });
      const { answers, errors, wrong } = await observer.stop();
      assert.deepEqual(wrong, []);
      assert.ok(answers > 50, `only ${answers} answers were looked at`);
      for (const pod of pods) {
        await assertSameProcess(stack, pod);
        await assertLogIsWhole(pod);
      }
      console.log(
        `      ${Math.round(tookMs)} ms; ${answers} right answers, errors: ${JSON.stringify(errors)}`,
      );
    });
  }
});
