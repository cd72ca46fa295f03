// ExecSync: exit codes, both streams, the time-out that kills, the maximum of output, and that nothing
// of a command stays.

import assert from 'node:assert/strict';
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { CreateContainerRequest, ExecSyncRequest } from '@cribus/contracts/gen/cri/v1/api.ts';
import { describe, it } from 'mocha';
import { failureOf } from './harness/image-calls.ts';
import { exec, runPod, shellContainer } from './harness/pods.ts';
import { eventually } from './harness/stack.ts';
import { HANDLERS, stackSuite } from './harness/suite.ts';

const SLEEP = "trap 'exit 0' TERM; while :; do sleep 0.05; done";
const MIB = 1024 * 1024;

/** Pids of the host whose command line has these words. */
function processesWith(words: string): string[] {
  return readdirSync('/proc').filter((name) => {
    if (!/^\d+$/.test(name)) return false;
    try {
      const line = readFileSync(`/proc/${name}/cmdline`, 'utf8').replaceAll('\0', ' ');
      return line.includes(words) && Number(name) !== process.pid;
    } catch {
      return false;
    }
  });
}

describe('ExecSync', () => {
  const suite = stackSuite();

  for (const handler of HANDLERS) {
    it(`answers exit code, stdout and stderr apart, byte by byte, under ${handler}`, async () => {
      const { stack, cri, image } = suite;
      const { containerId } = await runPod(stack, { image, script: SLEEP, handler });
      assert.deepEqual(
        await exec(cri, containerId, ['sh', '-c', 'echo out; echo err >&2; exit 42']),
        { exitCode: 42, stdout: 'out\n', stderr: 'err\n' },
      );
      assert.deepEqual(await exec(cri, containerId, ['true']), {
        exitCode: 0,
        stdout: '',
        stderr: '',
      });
      const bytes = await cri.call(
        'execSync',
        ExecSyncRequest.fromPartial({ containerId, cmd: ['printf', '\\000\\377\\r\\n\\001'] }),
      );
      assert.deepEqual([...bytes.stdout], [0, 255, 13, 10, 1]);
    });

    it(`says in an INVALID_ARGUMENT which command isn't in the container under ${handler}`, async () => {
      const { stack, cri, image } = suite;
      const { containerId } = await runPod(stack, { image, script: SLEEP, handler });
      await failureOf(exec(cri, containerId, ['no-such-command']), {
        code: 'INVALID_ARGUMENT',
        message: /no-such-command/,
      });
      await failureOf(exec(cri, containerId, ['/etc/passwd']), {
        code: 'INVALID_ARGUMENT',
        message: /passwd|permission denied/i,
      });
    });

    it(`kills a command and its children at the time-out with DEADLINE_EXCEEDED under ${handler}`, async () => {
      const { stack, cri, image } = suite;
      const { containerId } = await runPod(stack, { image, script: SLEEP, handler });
      const began = performance.now();
      const seconds = `3333${process.pid}`;
      const cmd = ['sh', '-c', `sleep ${seconds} & sleep ${seconds}; echo never`];
      await failureOf(exec(cri, containerId, cmd, 1), {
        code: 'DEADLINE_EXCEEDED',
        message: new RegExp(containerId),
      });
      const tookMs = performance.now() - began;
      assert.ok(tookMs >= 950 && tookMs < 10_000, `answered after ${tookMs} ms`);
      await eventually('the command is gone', async () => {
        const { stdout } = await exec(cri, containerId, ['ps']);
        return !stdout.includes(seconds) && processesWith(seconds).length === 0;
      });
      assert.equal((await exec(cri, containerId, ['true'])).exitCode, 0, 'the container lives');
    });
  }

  for (const handler of HANDLERS) {
    it(`cuts output so that 16 MiB on both streams pass a client of 16 MiB under ${handler}`, async () => {
      const { stack, cri, image } = suite;
      const { containerId } = await runPod(stack, { image, script: SLEEP, handler });
      const most = 'head -c 16777216 /dev/zero; head -c 16777216 /dev/zero >&2; exit 3';
      const both = await cri.call(
        'execSync',
        ExecSyncRequest.fromPartial({ containerId, cmd: ['sh', '-c', most], timeout: 60n }),
      );
      assert.equal(both.exitCode, 3, 'a command is not disturbed by the cut');
      const total = both.stdout.length + both.stderr.length;
      for (const stream of [both.stdout, both.stderr]) assert.ok(stream.length > 7 * MIB);
      assert.ok(total > 15 * MIB && total < 16 * MIB, `${total} bytes`);
      await eventually('a note in the log of what was discarded', async () =>
        readFileSync(join(stack.root, 'log', 'cri-gateway.log'), 'utf8')
          .split('\n')
          .some((line) => line.includes(containerId) && line.includes('was cut at its maximum')),
      );
      const more = 'head -c 40000000 /dev/zero';
      const one = await cri.call(
        'execSync',
        ExecSyncRequest.fromPartial({ containerId, cmd: ['sh', '-c', more], timeout: 60n }),
      );
      assert.equal(one.exitCode, 0);
      assert.ok(one.stdout.length > 15 * MIB && one.stdout.length < 16 * MIB);
    });
  }

  it('waits for the command where the time-out is 0, and runs as the container does', async () => {
    const { stack, cri, image } = suite;
    const { containerId } = await runPod(stack, {
      image,
      script: SLEEP,
      container: {
        workingDir: '/tmp',
        envs: [{ key: 'COLOUR', value: Buffer.from('blue') }],
        linux: { securityContext: { runAsUser: { value: 1000n }, supplementalGroups: [4000n] } },
      },
    });
    const cmd = ['sh', '-c', 'sleep 1.2; echo $COLOUR; pwd; id -u; id -G'];
    assert.deepEqual(await exec(cri, containerId, cmd, 0), {
      exitCode: 0,
      stdout: 'blue\n/tmp\n1000\n1000 2000 4000\n',
      stderr: '',
    });
  });

  it('leaves no process, descriptor or file behind after two thousand commands', async () => {
    const { stack, cri, image } = suite;
    const { containerId } = await runPod(stack, { image, script: SLEEP });
    const worker = await stack.pidOf('runtime-runc');
    const gateway = await stack.pidOf('cri-gateway');
    const descriptors = () => [worker, gateway].map((pid) => readdirSync(`/proc/${pid}/fd`).length);
    const children = () =>
      readFileSync(`/proc/${worker}/task/${worker}/children`, 'utf8').trim().split(' ').length;
    const rounds = async (count: number) => {
      for (let index = 0; index < count; index += 5) {
        const codes = await Promise.all(
          [0, 1, 2, 3, 4].map(async (code) => {
            const cmd = ['sh', '-c', `exit ${code}`];
            return (await exec(cri, containerId, cmd)).exitCode;
          }),
        );
        assert.deepEqual(codes, [0, 1, 2, 3, 4]);
      }
    };
    await rounds(20);
    const before = descriptors();
    const childrenBefore = children();
    await rounds(2_000);
    await eventually('as few descriptors as before', async () => {
      const [ofWorker = 0, ofGateway = 0] = descriptors();
      return ofWorker <= (before[0] ?? 0) + 2 && ofGateway <= (before[1] ?? 0) + 2;
    });
    assert.ok(children() <= childrenBefore, 'no child is left');
    const bundle = `${stack.root}/run/handlers/runc/${containerId}`;
    assert.deepEqual(
      readdirSync(bundle).filter((name) => name.startsWith('exec-')),
      [],
    );
    assert.equal((await exec(cri, containerId, ['ps'])).stdout.match(/sh -c exit \d/g), null);
  });

  it('refuses a command for what does not run, an empty one and a negative time-out', async () => {
    const { stack, cri, image } = suite;
    const pod = await runPod(stack, { image, script: SLEEP });
    const { containerId } = pod;
    await failureOf(exec(cri, containerId, []), { code: 'INVALID_ARGUMENT', message: /cmd/ });
    await failureOf(exec(cri, containerId, ['true'], -1), {
      code: 'INVALID_ARGUMENT',
      message: /timeout.*-1/,
    });
    const created = await cri.call(
      'createContainer',
      CreateContainerRequest.fromPartial({
        podSandboxId: pod.podId,
        config: shellContainer(image, SLEEP, { name: 'created' }),
        sandboxConfig: pod.config,
      }),
    );
    await cri.call('stopContainer', { containerId, timeout: 5n });
    for (const id of [created.containerId, containerId]) {
      await failureOf(exec(cri, id, ['true']), {
        code: 'FAILED_PRECONDITION',
        message: new RegExp(id),
      });
    }
    await failureOf(exec(cri, 'f'.repeat(64), ['true']), {
      code: 'NOT_FOUND',
      message: /f{64}/,
    });
  });
});
