// Logs under load: rotation while a container writes as fast as it can, monitors that hang, logs with a
// terminal, and paths that can be no log.

import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import {
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { readFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { ContainerState, CreateContainerRequest } from '@cribus/contracts/gen/cri/v1/api.ts';
import { describe, it } from 'mocha';
import { failureOf } from './harness/image-calls.ts';
import { containerStatus, exec, runPod, runSandbox, shellContainer } from './harness/pods.ts';
import { eventually, readLog } from './harness/stack.ts';
import { openStreams } from './harness/streams.ts';
import { HANDLERS, stackSuite } from './harness/suite.ts';

const ROTATIONS = 50;
const LINES_MIN = 10_000;
/** Of that many lines on each of two streams: the shortest has 53 bytes, the longest 57. */
const LOG_BYTES_MIN = LINES_MIN * 2 * 60;
/** Twenty lines between two looks at the file that ends it; a line on each stream. */
const FLOOD = [
  'i=0; while [ ! -e /stop ]; do n=$((i+20));',
  'while [ $i -lt $n ]; do echo line $i; echo line $i >&2; i=$((i+1)); done; done',
].join(' ');
const RECORD = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}(Z|[+-]\d\d:\d\d) (stdout|stderr) [FP] /;

describe('log rotation', () => {
  const suite = stackSuite();
  const ended = (containerId: string) =>
    eventually(
      'the end',
      async () => {
        const { state } = await containerStatus(suite.cri, containerId);
        return state === ContainerState.CONTAINER_EXITED;
      },
      30_000,
    );

  /** The texts of a stream over several files, pieces joined. */
  async function textsOf(files: readonly string[], stream: string): Promise<string[]> {
    const texts: string[] = [];
    let piece = '';
    for (const file of files) {
      for (const line of await readLog(file)) {
        if (line.stream !== stream) continue;
        piece += line.text;
        if (line.tag === 'P') continue;
        texts.push(piece);
        piece = '';
      }
    }
    assert.equal(piece, '', 'the last line is whole');
    return texts;
  }

  for (const handler of HANDLERS) {
    it(`loses and doubles no line of a container that floods its log while it is rotated fifty times under ${handler}`, async () => {
      const { stack, cri, image } = suite;
      const { containerId, logPath } = await runPod(stack, { image, script: FLOOD, handler });
      const files: string[] = [];
      for (let count = 0; count < ROTATIONS; count += 1) {
        if (count % 10 === 0) {
          const { size } = statSync(logPath);
          await eventually('more lines', async () => statSync(logPath).size > size);
        }
        const rotated = `${logPath}.${String(count).padStart(2, '0')}`;
        renameSync(logPath, rotated);
        files.push(rotated);
        // Several callers at once get one new file.
        const calls = count % 10 === 0 ? 3 : 1;
        await Promise.all(
          Array.from({ length: calls }, () => cri.call('reopenContainerLog', { containerId })),
        );
        assert.ok(existsSync(logPath));
      }
      files.push(logPath);
      const bytes = () => files.reduce((sum, file) => sum + statSync(file).size, 0);
      await eventually('enough lines', async () => bytes() > LOG_BYTES_MIN, 60_000);
      await exec(cri, containerId, ['touch', '/stop']);
      await ended(containerId);
      for (const file of files) {
        for (const line of readFileSync(file, 'utf8').split('\n').slice(0, -1)) {
          assert.match(line, RECORD);
        }
      }
      for (const stream of ['stdout', 'stderr']) {
        const texts = await textsOf(files, stream);
        assert.ok(texts.length > LINES_MIN, `only ${texts.length} lines`);
        const wrong = texts.findIndex((text, index) => text !== `line ${index}`);
        assert.equal(wrong, -1, `${stream}: "${texts[wrong]}" is the line of number ${wrong}`);
      }
      assert.deepEqual(
        readdirSync(dirname(logPath)).map((name) => join(dirname(logPath), name)),
        [logPath, ...files.slice(0, -1)].sort(),
      );
    });
  }

  it('keeps every line when the log is reopened fifty times without having been renamed', async () => {
    const { stack, cri, image } = suite;
    const { containerId, logPath } = await runPod(stack, { image, script: FLOOD });
    const { ino } = statSync(logPath);
    for (let count = 0; count < ROTATIONS; count += 10) {
      await Promise.all(
        Array.from({ length: 10 }, () => cri.call('reopenContainerLog', { containerId })),
      );
    }
    await exec(cri, containerId, ['touch', '/stop']);
    await ended(containerId);
    assert.equal(statSync(logPath).ino, ino);
    const texts = await textsOf([logPath], 'stdout');
    assert.ok(texts.every((text, index) => text === `line ${index}`));
  });

  it('leaves the log alone for good when a monitor that hangs did not reopen it in time', async () => {
    const { stack, cri, image } = suite;
    const { containerId, logPath } = await runPod(stack, {
      image,
      script: 'echo before; read go; echo after',
      container: { stdin: true },
    });
    await eventually('a line', async () => (await readLog(logPath)).length === 1);
    const { info } = await cri.call('containerStatus', { containerId, verbose: true });
    const { monitorPid } = JSON.parse(info['info'] ?? '{}') as { monitorPid: number };
    process.kill(monitorPid, 'SIGSTOP');
    try {
      renameSync(logPath, `${logPath}.1`);
      await failureOf(cri.call('reopenContainerLog', { containerId }), {
        code: 'DEADLINE_EXCEEDED',
        message: new RegExp(`${containerId}.*reopen`),
      });
      assert.equal(existsSync(logPath), false);
      // As the kubelet does.
      renameSync(`${logPath}.1`, logPath);
    } finally {
      process.kill(monitorPid, 'SIGCONT');
    }
    const { ino } = statSync(logPath);
    await sleep(300);
    assert.equal(statSync(logPath).ino, ino);
    assert.deepEqual(
      (await readLog(logPath)).map(({ text }) => text),
      ['before'],
    );
  });

  it('waits for a monitor that is slow to open its new log, and takes that away from nobody', async () => {
    const { stack, cri, image } = suite;
    const { containerId, logPath } = await runPod(stack, {
      image,
      script: 'echo before; read go; echo after',
      container: { stdin: true },
    });
    await eventually('a line', async () => (await readLog(logPath)).length === 1);
    const { info } = await cri.call('containerStatus', { containerId, verbose: true });
    const { monitorPid } = JSON.parse(info['info'] ?? '{}') as { monitorPid: number };
    renameSync(logPath, `${logPath}.1`);
    process.kill(monitorPid, 'SIGSTOP');
    const began = performance.now();
    const reopened = cri.call('reopenContainerLog', { containerId });
    await sleep(300);
    // Where the monitor makes its new log: it opens a fifo once somebody reads there.
    execFileSync('mkfifo', [`${logPath}.tmp`]);
    process.kill(monitorPid, 'SIGCONT');
    await sleep(5_500);
    const reading = readFile(`${logPath}.tmp`, 'utf8');
    await reopened;
    const tookMs = performance.now() - began;
    assert.ok(tookMs > 5_500 && tookMs < 10_000, `answered after ${tookMs} ms`);
    assert.ok(existsSync(logPath), 'its new log stays');
    const input = await openStreams(cri, { containerId, stdin: true });
    input.write('go\n');
    assert.match(await reading, / stdout F after\n$/);
    input.destroy();
  });

  it('fails a reopen whose directory is gone, and the container lives on', async () => {
    const { stack, cri, image } = suite;
    const { containerId, logPath } = await runPod(stack, { image, script: 'exec sleep 100' });
    rmSync(dirname(logPath), { recursive: true });
    await failureOf(cri.call('reopenContainerLog', { containerId }), {
      code: 'FAILED_PRECONDITION',
      message: /the log of container .*ENOENT.*main\.log/,
    });
    const { state } = await containerStatus(cri, containerId);
    assert.equal(state, ContainerState.CONTAINER_RUNNING);
    mkdirSync(dirname(logPath), { recursive: true });
    await cri.call('reopenContainerLog', { containerId });
    assert.ok(existsSync(logPath));
  });

  it('writes the lines of a terminal with their carriage returns, all of them as stdout', async () => {
    const { stack, image } = suite;
    for (const handler of HANDLERS) {
      const { containerId, logPath } = await runPod(stack, {
        image,
        script: 'echo out; echo err >&2; [ -t 0 ] && [ -t 1 ] && [ -t 2 ] && echo terminal',
        handler,
        container: { tty: true },
      });
      await ended(containerId);
      assert.deepEqual(
        (await readLog(logPath)).map(({ stream, text }) => [stream, text]),
        ['out\r', 'err\r', 'terminal\r'].map((text) => ['stdout', text]),
      );
    }
  });

  it('refuses a log for which the disk has no room, and lets a container run whose log fills it', async () => {
    const { cri, stack, image } = suite;
    const { podSandboxId, config } = await runSandbox(stack);
    // Inodes for the directory and one log.
    const options = 'size=64k,nr_inodes=2';
    execFileSync('mount', ['-t', 'tmpfs', '-o', options, 'tmpfs', config.logDirectory]);
    try {
      const create = (name: string) =>
        cri.call(
          'createContainer',
          CreateContainerRequest.fromPartial({
            podSandboxId,
            config: shellContainer(image, 'head -c 1000000 /dev/zero; exit 7', { name }),
            sandboxConfig: config,
          }),
        );
      const { containerId } = await create('first');
      await failureOf(create('second'), {
        code: 'RESOURCE_EXHAUSTED',
        message: /the log of container .*ENOSPC.*second\.log/,
      });
      await cri.call('startContainer', { containerId });
      await ended(containerId);
      assert.equal((await containerStatus(cri, containerId)).exitCode, 7);
    } finally {
      execFileSync('umount', ['-l', config.logDirectory]);
    }
  });

  it('makes the directories of a log path, and refuses one that can be no log with its name', async () => {
    const { cri, stack, image } = suite;
    const { podSandboxId, config } = await runSandbox(stack);
    writeFileSync(join(config.logDirectory, 'file'), 'kept');
    mkdirSync(join(config.logDirectory, 'directory'));
    const create = (logPath: string) =>
      cri.call(
        'createContainer',
        CreateContainerRequest.fromPartial({
          podSandboxId,
          config: shellContainer(image, 'true', { logPath }),
          sandboxConfig: config,
        }),
      );
    for (const [logPath, message] of [
      ['../outside.log', /leaves/],
      ['a/../../outside.log', /leaves/],
      ['file/0.log', /the log of container .*(ENOTDIR|EEXIST).*file/],
      ['directory', /the log of container .*EISDIR.*directory/],
      [`${'n'.repeat(300)}.log`, /the log of container .*ENAMETOOLONG/],
    ] as const) {
      await failureOf(create(logPath), { code: 'INVALID_ARGUMENT', message });
    }
    const left = () => readdirSync(config.logDirectory).sort();
    assert.deepEqual(left(), ['directory', 'file']);
    const absent = shellContainer(image, '', { command: ['/absent'], logPath: 'absent.log' });
    await failureOf(
      cri.call(
        'createContainer',
        CreateContainerRequest.fromPartial({ podSandboxId, config: absent, sandboxConfig: config }),
      ),
      { code: 'INVALID_ARGUMENT', message: /\/absent/ },
    );
    assert.deepEqual(left(), ['directory', 'file'], 'no log of a container that is not there');
    const { containerId } = await create('deep/in/there/0.log');
    await cri.call('startContainer', { containerId });
    const log = join(config.logDirectory, 'deep/in/there/0.log');
    assert.equal((await containerStatus(cri, containerId)).logPath, log);
    assert.ok(existsSync(log));
    assert.equal(readFileSync(join(config.logDirectory, 'file'), 'utf8'), 'kept');
  });
});
