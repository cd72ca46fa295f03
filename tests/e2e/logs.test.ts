// The logs of containers: CRI's line format, long lines in pieces, and rotation by ReopenContainerLog.

import assert from 'node:assert/strict';
import { existsSync, readdirSync, readFileSync, renameSync, statSync } from 'node:fs';
import { dirname } from 'node:path';
import { ContainerState, CreateContainerRequest } from '@cribus/contracts/gen/cri/v1/api.ts';
import { describe, it } from 'mocha';
import { failureOf } from './harness/image-calls.ts';
import { containerStatus, runPod, shellContainer } from './harness/pods.ts';
import { eventually, readLog } from './harness/stack.ts';
import { HANDLERS, stackSuite } from './harness/suite.ts';

const COUNT = 'i=0; while :; do echo line $i; i=$((i+1)); sleep 0.02; done';

describe('logs', () => {
  const suite = stackSuite();
  const ended = (containerId: string) =>
    eventually('the end', async () => {
      const { state } = await containerStatus(suite.cri, containerId);
      return state === ContainerState.CONTAINER_EXITED;
    });

  for (const handler of HANDLERS) {
    it(`writes each line with time, stream and tag, whole when the container has ended, under ${handler}`, async () => {
      const { stack, image } = suite;
      const { containerId, logPath } = await runPod(stack, {
        image,
        script: 'for i in 1 2 3; do echo out $i; echo err $i >&2; done; printf "no newline"',
        handler,
      });
      await ended(containerId);
      const lines = readFileSync(logPath, 'utf8').trimEnd().split('\n');
      for (const line of lines) {
        assert.match(
          line,
          /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}(Z|[+-]\d\d:\d\d) (stdout|stderr) [FP] /,
        );
      }
      const read = await readLog(logPath);
      const texts = (stream: string) =>
        read.filter((line) => line.stream === stream).map(({ text }) => text);
      assert.deepEqual(texts('stdout'), ['out 1', 'out 2', 'out 3', 'no newline']);
      assert.deepEqual(texts('stderr'), ['err 1', 'err 2', 'err 3']);
    });

    it(`cuts a long line into P pieces and a final F without losing a byte under ${handler}`, async () => {
      const { stack, image } = suite;
      const { containerId, logPath } = await runPod(stack, {
        image,
        script: 'head -c 50000 /dev/zero | tr "\\0" a; echo; echo short',
        handler,
      });
      await ended(containerId);
      const read = await readLog(logPath);
      assert.equal(read.at(-1)?.text, 'short');
      const pieces = read.slice(0, -1);
      assert.ok(pieces.length > 1);
      assert.deepEqual(
        pieces.map(({ tag }) => tag),
        [...Array(pieces.length - 1).fill('P'), 'F'],
      );
      assert.equal(pieces.map(({ text }) => text).join(''), 'a'.repeat(50_000));
    });

    it(`reopens a log that was renamed away, and loses no line over the rotation, under ${handler}`, async () => {
      const { stack, cri, image } = suite;
      const { containerId, logPath } = await runPod(stack, { image, script: COUNT, handler });
      await eventually('lines', async () => (await readLog(logPath)).length > 3);
      const rotated = `${logPath}.20261123-000000`;
      renameSync(logPath, rotated);
      await cri.call('reopenContainerLog', { containerId });
      assert.ok(existsSync(logPath), 'the new file is there when the call has answered');
      await eventually('new lines', async () => (await readLog(logPath)).length > 3);
      const sizeBytes = statSync(rotated).size;
      await eventually('more lines', async () => (await readLog(logPath)).length > 8);
      assert.equal(statSync(rotated).size, sizeBytes, 'the old file grows no more');
      const texts = [...(await readLog(rotated)), ...(await readLog(logPath))].map(
        ({ text }) => text,
      );
      assert.deepEqual(
        texts,
        texts.map((_text, index) => `line ${index}`),
      );
    });
  }

  it('changes nothing by a reopen without a rename before it', async () => {
    const { stack, cri, image } = suite;
    const { containerId, logPath } = await runPod(stack, { image, script: COUNT });
    await eventually('lines', async () => (await readLog(logPath)).length > 3);
    const { ino } = statSync(logPath);
    await cri.call('reopenContainerLog', { containerId });
    await eventually('more lines', async () => (await readLog(logPath)).length > 10);
    assert.equal(statSync(logPath).ino, ino);
    assert.equal((await readLog(logPath))[0]?.text, 'line 0');
    assert.deepEqual(readdirSync(dirname(logPath)), ['main.log']);
  });

  it('refuses to reopen the log of what does not run, and makes no file', async () => {
    const { stack, cri, image } = suite;
    const pod = await runPod(stack, { image, script: 'echo done' });
    await ended(pod.containerId);
    renameSync(pod.logPath, `${pod.logPath}.1`);
    await failureOf(cri.call('reopenContainerLog', { containerId: pod.containerId }), {
      code: 'FAILED_PRECONDITION',
      message: new RegExp(`${pod.containerId}.*exited`, 'i'),
    });
    assert.equal(existsSync(pod.logPath), false);
    const { containerId } = await cri.call(
      'createContainer',
      CreateContainerRequest.fromPartial({
        podSandboxId: pod.podId,
        config: shellContainer(image, COUNT, { name: 'created' }),
        sandboxConfig: pod.config,
      }),
    );
    await failureOf(cri.call('reopenContainerLog', { containerId }), {
      code: 'FAILED_PRECONDITION',
      message: new RegExp(containerId),
    });
    await failureOf(cri.call('reopenContainerLog', { containerId: 'e'.repeat(64) }), {
      code: 'NOT_FOUND',
      message: /e{64}/,
    });
  });

  it('keeps the log of a container that was removed, as the kubelet does the rest', async () => {
    const { stack, cri, image } = suite;
    const { containerId, logPath } = await runPod(stack, { image, script: 'echo kept' });
    await ended(containerId);
    await cri.call('removeContainer', { containerId });
    assert.deepEqual(
      (await readLog(logPath)).map(({ text }) => text),
      ['kept'],
    );
  });

  it('runs a container without a log where no log path or no log directory is named', async () => {
    const { stack, cri, image } = suite;
    const { containerId } = await runPod(stack, {
      image,
      script: 'echo unheard',
      container: { logPath: '' },
    });
    await ended(containerId);
    const { logPath, exitCode } = await containerStatus(cri, containerId);
    assert.deepEqual([logPath, exitCode], ['', 0]);
  });
});
