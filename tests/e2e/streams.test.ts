// The streams of exec and attach, by every protocol that a client may speak. Forwarded ports have a
// file of their own.

import assert from 'node:assert/strict';
import { readdirSync, readFileSync, statSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { ContainerState, ExecRequest } from '@cribus/contracts/gen/cri/v1/api.ts';
import { dialSpdy, UpgradeRefused } from '@cribus/cri-gateway/streaming/testing/spdy-client.ts';
import { describe, it } from 'mocha';
import { failureOf } from './harness/image-calls.ts';
import { GIB, watchLargeTransfer } from './harness/large-transfer.ts';
import { patient } from './harness/patience.ts';
import { containerStatus, exec, runPod } from './harness/pods.ts';
import { eventually, readLog } from './harness/stack.ts';
import {
  openStreams,
  pumpBytes,
  SPDY_PROTOCOLS,
  streamUrl,
  type Transport,
  WEBSOCKET_PROTOCOLS,
} from './harness/streams.ts';
import { HANDLERS, stackSuite } from './harness/suite.ts';

const SLEEP = "trap 'exit 0' TERM; while :; do sleep 0.05; done";
const PROTOCOLS: readonly (readonly [Transport, string])[] = [
  ...SPDY_PROTOCOLS.map((protocol) => ['SPDY', protocol] as const),
  ...WEBSOCKET_PROTOCOLS.map((protocol) => ['WebSocket', protocol] as const),
];

const TRANSPORTS = ['SPDY', 'WebSocket'] as const satisfies readonly Transport[];
const IDLE_S = 2;

/** Whether a process of the host has these words on its command line. */
function isRunning(words: string): boolean {
  return readdirSync('/proc').some((name) => {
    if (!/^\d+$/.test(name) || Number(name) === process.pid) return false;
    try {
      return readFileSync(`/proc/${name}/cmdline`, 'utf8').replaceAll('\0', ' ').includes(words);
    } catch {
      return false;
    }
  });
}

describe('the streams of exec and attach', () => {
  const suite = stackSuite();

  for (const handler of HANDLERS) {
    it(`run a command by every version of SPDY and WebSocket, with input, both outputs and exit code, under ${handler}`, async () => {
      const { stack, cri, image } = suite;
      const { containerId } = await runPod(stack, { image, script: SLEEP, handler });
      const cmd = ['sh', '-c', 'head -c 5; echo warned >&2; exit 3'];
      await Promise.all(
        PROTOCOLS.map(async ([transport, protocol]) => {
          const request = { containerId, cmd, stdin: true, transport, protocol };
          const streams = await openStreams(cri, request);
          assert.equal(streams.protocol, protocol);
          streams.write('input');
          const { exitCode, text } = await streams.end;
          const told = /^v[45]/.test(protocol)
            ? exitCode === 3
            : /non-zero exit code: exit code 3/.test(text);
          assert.ok(told, `${transport} ${protocol}: ${text}`);
          assert.equal((await streams.stdout).toString(), 'input');
          assert.equal((await streams.stderr).toString(), 'warned\n');
          streams.destroy();
        }),
      );
    });

    it(`end the input of a command while its output goes on, under ${handler}`, async () => {
      const { stack, cri, image } = suite;
      const { containerId } = await runPod(stack, { image, script: SLEEP, handler });
      for (const transport of ['SPDY', 'WebSocket'] as const) {
        const cmd = ['sh', '-c', 'cat; echo after'];
        const streams = await openStreams(cri, { containerId, cmd, stdin: true, transport });
        streams.write('before ');
        streams.endInput();
        assert.equal((await streams.stdout).toString(), 'before after\n');
        assert.equal((await streams.end).exitCode, 0);
        streams.destroy();
      }
    });

    it(`give a command a terminal of the client's size, which may change, under ${handler}`, async () => {
      const { stack, cri, image } = suite;
      const { containerId } = await runPod(stack, { image, script: SLEEP, handler });
      const script = 'read a; stty size; read b; stty size; test -t 0 && test -t 1 && exit 9';
      for (const transport of ['SPDY', 'WebSocket'] as const) {
        const cmd = ['sh', '-c', script];
        const request = { containerId, cmd, stdin: true, tty: true, transport };
        const streams = await openStreams(cri, request);
        let shown = '';
        streams.onOutput((piece) => {
          shown += piece.toString();
        });
        streams.resize(132, 43);
        streams.write('\n');
        await eventually('the first size', async () => shown.includes('43 132'));
        streams.resize(80, 24);
        streams.write('\n');
        assert.equal((await streams.end).exitCode, 9);
        assert.match(shown, /24 80\r\n/);
        streams.destroy();
      }
    });

    it(`tell a command that can't be started as an internal error, under ${handler}`, async () => {
      const { stack, cri, image } = suite;
      const { containerId } = await runPod(stack, { image, script: SLEEP, handler });
      const streams = await openStreams(cri, { containerId, cmd: ['no-such-command'] });
      const { text, exitCode } = await streams.end;
      assert.equal(exitCode, undefined);
      assert.match(text, /"reason":"InternalError"/);
      assert.match(text, /no-such-command/);
      streams.destroy();
    });

    it(`kill a command soon after its client vanished, whatever was on its way, under ${handler}`, async () => {
      const { stack, cri, image } = suite;
      const { containerId } = await runPod(stack, { image, script: SLEEP, handler });
      const marker = `while :; do : ${containerId.slice(0, 12)}; sleep 0.2; done`;
      const alive = async (): Promise<boolean> => {
        const listing = await openStreams(cri, { containerId, cmd: ['ps', '-o', 'args'] });
        const found = (await listing.stdout).toString().includes(marker);
        listing.destroy();
        return found;
      };
      const [quiet, flooded, stuck] = await Promise.all(
        [marker, `yes & ${marker}`, marker].map((script) =>
          openStreams(cri, { containerId, cmd: ['sh', '-c', script], stdin: true }),
        ),
      );
      assert.ok(quiet !== undefined && flooded !== undefined && stuck !== undefined);
      flooded.socket.pause();
      const piece = Buffer.alloc(256 * 1024);
      while (stuck.socket.writableLength < 8 * piece.length) {
        stuck.write(piece);
        await sleep(1);
      }
      assert.ok(await alive(), 'the commands did not start');
      for (const streams of [quiet, flooded, stuck]) streams.destroy();
      await eventually('the commands are gone', async () => !(await alive()));
    });

    it(`attach to a container with stdin_once, whose input ends with the client's, under ${handler}`, async () => {
      const { stack, cri, image } = suite;
      const script = 'echo started; cat; echo over; exit 4';
      const container = { stdin: true, stdinOnce: true };
      const pod = await runPod(stack, { image, script, handler, container });
      const { containerId } = pod;
      const streams = await openStreams(cri, { containerId, stdin: true, transport: 'WebSocket' });
      streams.write('typed\n');
      streams.endInput();
      assert.equal((await streams.end).exitCode, 0);
      assert.match((await streams.stdout).toString(), /typed\nover\n$/);
      await eventually('the container exits', async () => {
        const { state, exitCode } = await containerStatus(cri, containerId);
        return state === ContainerState.CONTAINER_EXITED && exitCode === 4;
      });
      const logged = (await readLog(pod.logPath)).map((line) => line.text);
      assert.deepEqual(logged, ['started', 'typed', 'over']);
      streams.destroy();
    });

    it(`stop a container whose attached client stopped reading, under ${handler}`, async () => {
      const { stack, cri, image } = suite;
      const pod = await runPod(stack, { image, script: `exec yes ${'x'.repeat(1000)}`, handler });
      const { containerId } = pod;
      const streams = await openStreams(cri, { containerId });
      streams.socket.pause();
      // The monitor writes no log any more when all that lies between it and the client is full.
      let sizeBytes = -1;
      await eventually(
        'the log stands still',
        async () => {
          const before = sizeBytes;
          await sleep(500);
          sizeBytes = statSync(pod.logPath).size;
          return sizeBytes > 0 && sizeBytes === before;
        },
        30_000,
      );
      await cri.call('stopContainer', { containerId, timeout: 0n }, { timeoutMs: 20_000 });
      const { state, exitCode } = await containerStatus(cri, containerId);
      assert.deepEqual([state, exitCode], [ContainerState.CONTAINER_EXITED, 137]);
      streams.destroy();
    });

    it(`attach to a container with a terminal, several times, under ${handler}`, async () => {
      const { stack, cri, image } = suite;
      const script = 'while read line; do echo "got $line"; done';
      const container = { stdin: true, tty: true };
      const { containerId } = await runPod(stack, { image, script, handler, container });
      for (const transport of ['SPDY', 'WebSocket'] as const) {
        const streams = await openStreams(cri, { containerId, stdin: true, tty: true, transport });
        let shown = '';
        streams.onOutput((piece) => {
          shown += piece.toString();
        });
        streams.write(`${transport}\n`);
        await eventually('the answer', async () => shown.includes(`got ${transport}\r\n`));
        streams.destroy();
      }
      const { state } = await containerStatus(cri, containerId);
      assert.equal(state, ContainerState.CONTAINER_RUNNING);
    });
  }

  it('serve fifty commands at once, each with its own bytes', async () => {
    const { stack, cri, image } = suite;
    const { containerId } = await runPod(stack, { image, script: SLEEP });
    const bodies = Array.from({ length: 50 }, (_, at) => `session ${at} `.repeat(1000));
    const outputs = await Promise.all(
      bodies.map(async (body, at) => {
        const transport = at % 2 === 0 ? 'SPDY' : 'WebSocket';
        const request = { containerId, cmd: ['cat'], stdin: true, transport } as const;
        const streams = await openStreams(cri, request);
        streams.write(body);
        streams.endInput();
        const output = (await streams.stdout).toString();
        streams.destroy();
        return output;
      }),
    );
    assert.deepEqual(outputs, bodies);
  });

  for (const transport of TRANSPORTS) {
    it(`carry one GiB through a command over ${transport}, both ways at once, intact and with flat memory`, async () => {
      const { stack, cri, image } = suite;
      const { containerId } = await runPod(stack, { image, script: SLEEP });
      const pids = [await stack.pidOf('cri-gateway'), await stack.pidOf('runtime-runc')];
      const streams = await openStreams(cri, { containerId, cmd: ['cat'], stdin: true, transport });
      const transfer = watchLargeTransfer(pids);
      streams.onOutput(transfer.take);
      const sent = pumpBytes({ ...streams, end: streams.endInput }, GIB);
      assert.equal((await streams.end).exitCode, 0);
      await transfer.assertIntactAndFlat(sent);
      streams.destroy();
    });
  }

  it('leave no process of a finished command on the host', async () => {
    const { stack, cri, image } = suite;
    const { containerId } = await runPod(stack, { image, script: SLEEP });
    const marker = `echo stream-${containerId.slice(0, 12)}`;
    const streams = await openStreams(cri, { containerId, cmd: ['sh', '-c', marker] });
    await streams.end;
    streams.destroy();
    await eventually('the command is gone', async () => !isRunning(marker));
  });

  // The last one, as it leaves no room for other streams for a minute.
  it('give a URL to whoever comes first, once, and no more than a thousand at a time', async () => {
    const { stack, cri, image } = suite;
    const { containerId } = await runPod(stack, { image, script: SLEEP });
    const request = { containerId, cmd: ['true'] };
    const url = await streamUrl(cri, request);
    assert.match(url, /^http:\/\/127\.0\.0\.1:\d+\/exec\/[\w-]{22,}$/);
    const first = await dialSpdy(url, [SPDY_PROTOCOLS[0]]);
    await assert.rejects(
      () => dialSpdy(url, [SPDY_PROTOCOLS[0]]),
      (error) => error instanceof UpgradeRefused && error.status === 404,
    );
    first.destroy();
    const urls = await Promise.all(Array.from({ length: 1_000 }, () => streamUrl(cri, request)));
    assert.equal(new Set(urls).size, 1_000);
    await failureOf(cri.call('exec', ExecRequest.fromPartial({ ...request, stdout: true })), {
      code: 'RESOURCE_EXHAUSTED',
      message: /1000 streams wait/,
    });
    const used = await dialSpdy(urls[0] ?? '', [SPDY_PROTOCOLS[0]]);
    used.destroy();
    await streamUrl(cri, request);
  });
});

describe('a stream on which nothing goes either way', () => {
  const suite = stackSuite({ config: `[gateway]\nstreaming_idle_timeout_s = ${IDLE_S}\n` });

  for (const transport of TRANSPORTS) {
    it(`ends after the idle time-out over ${transport}, with its command, and not while anything does`, async () => {
      const { stack, cri, image } = suite;
      const { containerId } = await runPod(stack, { image, script: SLEEP });
      const request = { containerId, cmd: ['cat'], stdin: true, transport };
      const streams = await openStreams(cri, request);
      const closed = new Promise((resolve) => streams.socket.once('close', resolve));
      let got = '';
      let atMs = performance.now();
      streams.onOutput((piece) => {
        got += piece.toString();
        atMs = performance.now();
      });
      // For twice the time-out.
      for (let count = 0; count < 2 * IDLE_S; count += 1) {
        await sleep(1_000);
        streams.write(`${count}\n`);
        await eventually('its echo', async () => got.endsWith(`${count}\n`));
      }
      await closed;
      const idleMs = performance.now() - atMs;
      assert.ok(
        idleMs >= IDLE_S * 1_000 - 100 && idleMs < patient(IDLE_S * 1_000 + 2_000),
        `${idleMs} ms`,
      );
      await eventually('the command is gone', async () => {
        return !/ cat$/m.test((await exec(cri, containerId, ['ps'])).stdout);
      });
      streams.destroy();
    });
  }
});
