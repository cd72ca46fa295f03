// For tests: what every driver's sessions do, with its real engine under conmon. Each family calls it.

import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { existsSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { ExecRequest } from '@cribus/contracts/gen/node/v1/verbs.ts';
import { FRAME } from '@cribus/contracts/session.ts';
import { systemClock } from '@cribus/host/clock.ts';
import { after, before, describe, it } from 'mocha';
import { attachSuite } from './attach-suite.ts';
import { endStaleExecs } from './kill-exec.ts';
import { portForwardSuite } from './port-forward-suite.ts';
import { dialSession } from './session-dialler.ts';
import { CHUNK, eventually, processesWith } from './suite-steps.ts';
import { placesOf, requireContainer } from './worker.ts';
import { openWorkerFixture, type WorkerFixture } from './worker-fixture.ts';

export type SessionSuiteOptions = Parameters<typeof openWorkerFixture>[0];

export function sessionSuite(options: SessionSuiteOptions): void {
  describe(`sessions under ${options.engine}`, () => {
    let fixture: WorkerFixture;
    let id: string;
    const start = (containerId: string) =>
      fixture.verbs['start-container']({ containerId }, fixture.context());
    const exec = async (script: string, request: Partial<ExecRequest> = {}) => {
      const tty = request.tty ?? false;
      const session = await fixture.verbs.exec(
        ExecRequest.fromPartial({
          containerId: id,
          cmd: ['sh', '-c', script],
          ...{ stdin: true, stdout: true, stderr: !tty },
          ...request,
        }),
        fixture.context(),
      );
      return session;
    };
    const left = async (words: string) =>
      processesWith(words).length > 0 || (await fixture.exec(id, ['ps'])).stdout.includes(words);

    before(async function () {
      this.timeout(60_000);
      fixture = await openWorkerFixture(options);
      if (fixture.worker.driver.sandboxModel === 'root-container') {
        await fixture.verbs['start-sandbox']({ sandbox: fixture.sandbox }, fixture.context());
      }
      id = await fixture.create('shell', { command: ['sleep', '1000'] });
      await start(id);
    });
    after(() => fixture.close());

    it('carry stdin to its end, both outputs and the exit code', async () => {
      const session = dialSession(await exec('cat; echo err >&2; exit 7'));
      session.send(FRAME.stdin, 'first ');
      await session.until('first ');
      session.send(FRAME.stdin, 'second');
      session.send(FRAME.stdinEnd);
      assert.equal(await session.ended, 7);
      assert.equal(session.stdout(), 'first second');
      assert.equal(session.stderr(), 'err\n');
    });

    it('have no stdin and send no stream that was not asked for', async () => {
      const request = { stdin: false, stdout: false, stderr: true };
      const session = dialSession(await exec('cat; echo out; echo err >&2', request));
      session.send(FRAME.stdin, 'dropped');
      assert.equal(await session.ended, 0);
      assert.equal(session.stdout(), '');
      assert.equal(session.stderr(), 'err\n');
    });

    it('say 128 and the number of the signal that ended a command', async () => {
      const session = dialSession(await exec('kill -9 $$'));
      assert.equal(await session.ended, 137);
    });

    it('fail with the name of a command that is not there, with and without a terminal', async () => {
      for (const tty of [false, true]) {
        const session = dialSession(await exec('', { cmd: ['no-such-command'], tty }));
        await assert.rejects(session.ended, {
          kind: 'invalid_argument',
          message: /no-such-command/,
        });
      }
    });

    it('give a terminal of the size that was told first, and then the next one', async () => {
      const session = dialSession(
        await exec(
          'test -t 0 && test -t 1 && test -t 2 && echo yes; stty size; read line; stty size; exit 5',
          { tty: true },
        ),
      );
      session.resize(133, 44);
      await session.until('44 133\r\n');
      session.resize(71, 22);
      // The engine passes a size on when it is told, which nobody else hears of.
      await systemClock.sleep(200);
      session.send(FRAME.stdin, 'go\n');
      assert.equal(await session.ended, 5);
      assert.match(session.stdout(), /^yes\r\n44 133\r\ngo\r\n22 71\r\n$/);
    });

    it('pass a control character to a terminal, and the end of stdin', async () => {
      const interrupted = dialSession(await exec('echo ready; sleep 1000', { tty: true }));
      await interrupted.until('ready');
      interrupted.send(FRAME.stdin, '\x03');
      assert.equal(await interrupted.ended, 130);
      const ended = dialSession(await exec('cat; echo over', { tty: true }));
      ended.send(FRAME.stdin, 'no newline');
      ended.send(FRAME.stdinEnd);
      assert.equal(await ended.ended, 0);
      assert.match(ended.stdout(), /over\r\n$/);
    });

    it('show all that was written to a terminal before its end', async () => {
      const session = dialSession(await exec('seq 1 20000', { tty: true }));
      assert.equal(await session.ended, 0);
      const wanted = Array.from({ length: 20_000 }, (_, index) => `${index + 1}\r\n`).join('');
      assert.equal(session.stdout().length, wanted.length);
      assert.equal(session.stdout(), wanted);
    });

    it('carry many bytes there and back unharmed while memory stays flat', async function () {
      this.timeout(60_000);
      const sums = { sent: createHash('sha256'), received: createHash('sha256') };
      const session = dialSession(await exec('cat'), {
        onStdout: (chunk) => sums.received.update(chunk),
      });
      const before = process.memoryUsage().rss;
      let peak = 0;
      function* chunks() {
        for (let index = 0; index < 2048; index += 1) {
          sums.sent.update(CHUNK);
          peak = Math.max(peak, process.memoryUsage().rss);
          yield CHUNK;
        }
      }
      await session.stream(chunks());
      assert.equal(await session.ended, 0);
      assert.equal(sums.received.digest('hex'), sums.sent.digest('hex'));
      assert.ok(peak - before < 64 * 1024 * 1024, `grew by ${(peak - before) >> 20} MiB`);
    });

    for (const blocked of [false, true]) {
      const how = blocked ? ' that has sent more than the command takes' : '';
      it(`kill the command soon after a client vanished${how}`, async () => {
        for (const tty of [false, true]) {
          const seconds = `${blocked ? 77 : 66}${tty ? 1 : 2}${process.pid}`;
          const session = dialSession(
            await exec(`sleep ${seconds} & echo ready; sleep ${seconds}`, { tty }),
          );
          await session.until('ready');
          if (blocked) {
            session.send(FRAME.stdin, Buffer.alloc(900_000, 'x'));
            await systemClock.sleep(100);
          }
          session.socket.destroy();
          await eventually(`sleep ${seconds} is gone`, async () => !(await left(seconds)));
        }
      });
    }

    it('leave nothing of a command that was killed for its time, wherever its children went', async () => {
      const seconds = `5555${process.pid}`;
      // Inside a Sentry nobody can tell whose child an orphan was (docs/conformance.md).
      const onHost = fixture.worker.driver.signalBy === 'process';
      const away = onHost ? `setsid sh -c '(setsid sleep ${seconds} &); exit' & wait; ` : '';
      const script = `${away}setsid sleep ${seconds} & sh -c 'sleep ${seconds} & wait' & sleep ${seconds}`;
      await assert.rejects(fixture.exec(id, ['sh', '-c', script], 1), { kind: 'timeout' });
      assert.equal(await left(seconds), false, 'nothing is left by the time of the answer');
      assert.doesNotMatch(readdirSync(join(fixture.worker.paths.run, id)).join(), /exec-/);
    });

    it('are ended by the next worker if theirs is gone, and only theirs', async () => {
      const seconds = `8888${process.pid}`;
      const session = dialSession(await exec(`echo ready; sleep ${seconds}`));
      await session.until('ready');
      // As a worker that is killed: its sockets are gone, and it ends nothing itself.
      const { bundle } = placesOf(fixture.worker, id);
      const [name = ''] = readdirSync(bundle).filter((each) => each.startsWith('exec-'));
      await eventually('the command has a pid file', async () =>
        existsSync(join(bundle, name, 'pid')),
      );
      await endStaleExecs(fixture.worker, requireContainer(fixture.worker, id));
      await eventually(`sleep ${seconds} is gone`, async () => !(await left(seconds)));
      assert.equal(existsSync(join(bundle, name)), false);
      assert.equal((await fixture.exec(id, ['echo'])).exitCode, 0, 'the container lives');
      session.socket.destroy();
    });

    it('end without what a background child of the command holds open', async () => {
      const began = performance.now();
      const session = dialSession(await exec('echo said; sleep 8 & exit 3'));
      assert.equal(await session.ended, 3);
      assert.equal(session.stdout(), 'said\n');
      const tookMs = performance.now() - began;
      assert.ok(tookMs > 1900 && tookMs < 6000, `${tookMs} ms`);
    });

    it('wait for a slow client before they give output up', async () => {
      const session = dialSession(await exec('head -c 900000 /dev/zero'));
      await session.until('\0');
      session.socket.pause();
      await systemClock.sleep(2_600);
      session.socket.resume();
      assert.equal(await session.ended, 0);
      assert.equal(session.stdout().length, 900_000);
    });

    it("wait for slow clients before they give a terminal's output up", async () => {
      // How much is in which buffer at its end, which says EIO, depends on the size.
      const sizes = [230_000, 260_000, 290_000, 320_000, 350_000, 380_000, 410_000, 440_000];
      const sessions = await Promise.all(
        sizes.map(async (size) => {
          const session = dialSession(await exec(`head -c ${size} /dev/zero`, { tty: true }));
          await session.until('\0');
          session.socket.pause();
          return session;
        }),
      );
      await systemClock.sleep(2_600);
      for (const { socket } of sessions) socket.resume();
      assert.deepEqual(
        await Promise.all(sessions.map(({ ended }) => ended)),
        sizes.map(() => 0),
      );
      assert.deepEqual(
        sessions.map((session) => session.stdout().length),
        sizes,
      );
    });

    const of = {
      get fixture() {
        return fixture;
      },
      start,
    };
    attachSuite(of);
    portForwardSuite(of);
  });
}
