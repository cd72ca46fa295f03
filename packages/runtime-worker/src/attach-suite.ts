// For tests: what every driver's attached sessions do.

import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import type { ContainerConfig } from '@cribus/contracts/gen/cri/v1/api.ts';
import { AttachRequest } from '@cribus/contracts/gen/node/v1/verbs.ts';
import { FRAME } from '@cribus/contracts/session.ts';
import { systemClock } from '@cribus/host/clock.ts';
import { describe, it } from 'mocha';
import { type Dialled, dialSession } from './session-dialler.ts';
import { CHUNK, eventually, type SuiteWorker } from './suite-steps.ts';

export function attachSuite(of: SuiteWorker): void {
  describe("to a container's own process", () => {
    const create = async (name: string, script: string, more: Partial<ContainerConfig> = {}) => {
      const command = ['sh', '-c', script];
      return await of.fixture.create(name, { command, ...more });
    };
    const attach = async (containerId: string, request: Partial<AttachRequest> = {}) =>
      await of.fixture.verbs.attach(
        AttachRequest.fromPartial({
          ...{ containerId, stdin: true, stdout: true, stderr: true, ...request },
        }),
        of.fixture.context(),
      );
    /** Until all hear the answer, as nobody is told when an attached session hears. */
    const say = async (speaker: Dialled, line: string, hearers: readonly Dialled[]) => {
      let heard = false;
      const hearing = Promise.all(hearers.map((each) => each.until(`got ${line}\n`))).then(() => {
        heard = true;
      });
      while (!heard) {
        speaker.send(FRAME.stdin, `${line}\n`);
        await Promise.race([hearing, systemClock.sleep(200)]);
      }
    };
    const logged = (containerId: string) =>
      readFile(of.fixture.worker.store.get(containerId)?.logPath ?? '', 'utf8');
    const remove = (containerId: string) =>
      of.fixture.verbs['remove-container']({ containerId }, of.fixture.context());

    it('carry stdin, both outputs, and end with it', async () => {
      const script = 'while read line; do echo "got $line"; echo "err $line" >&2; done; exit 3';
      const container = await create('once', script, { stdin: true, stdinOnce: true });
      const session = dialSession(await attach(container));
      await of.start(container);
      session.send(FRAME.stdin, 'one\n');
      await session.until('got one\n');
      session.send(FRAME.stdin, 'two\n');
      session.send(FRAME.stdinEnd);
      assert.equal(await session.ended, 0);
      assert.equal(session.stdout(), 'got one\ngot two\n');
      assert.equal(session.stderr(), 'err one\nerr two\n');
      await of.fixture.worker.exits.ended(container, systemClock.timeout(10_000));
      assert.equal(of.fixture.worker.store.get(container)?.exitCode, 3);
      await assert.rejects(attach(container), { kind: 'wrong_state' });
      await remove(container);
    });

    it('leave stdin open for the next client unless it is for one only', async () => {
      const script = 'echo begun; while read line; do echo "got $line"; done';
      const container = await create('open', script, { stdin: true });
      await of.start(container);
      const first = dialSession(await attach(container));
      first.send(FRAME.stdin, 'one\n');
      await first.until('got one\n');
      first.send(FRAME.stdinEnd);
      first.socket.destroy();
      const second = dialSession(await attach(container));
      const watching = dialSession(await attach(container, { stdin: false, stderr: false }));
      watching.send(FRAME.stdin, 'unheard\n');
      await say(second, 'two', [second, watching]);
      assert.match(second.stdout(), /^(got two\n)+$/);
      watching.socket.destroy();
      await of.fixture.verbs['stop-container'](
        { containerId: container, timeoutS: 0n },
        of.fixture.context(),
      );
      assert.equal(await second.ended, 0);
      await remove(container);
    });

    it('leave stdin open for its one client when others were there and left', async () => {
      const script = 'echo begun; while read line; do echo "got $line"; done; echo over';
      const container = await create('watched', script, { stdin: true, stdinOnce: true });
      const watch = async () => dialSession(await attach(container, { stdin: false }));
      const [first, second] = [await watch(), await watch()];
      await of.start(container);
      await Promise.all([first, second].map((each) => each.until('begun\n')));
      for (const each of [first, second]) each.socket.destroy();
      await systemClock.sleep(200);
      const third = await watch();
      const session = dialSession(await attach(container));
      await say(session, 'one', [session, third]);
      session.send(FRAME.stdinEnd);
      assert.deepEqual(await Promise.all([session.ended, third.ended]), [0, 0]);
      for (const each of [session, third]) assert.match(each.stdout(), /^(got one\n)+over\n$/);
      await eventually('no connection is left', async () => of.fixture.worker.watching.size === 0);
      await remove(container);
    });

    it('are ended where the client takes nothing, and the others and the log go on', async function () {
      this.timeout(60_000);
      const container = await create('flood', 'seq 1 400000; exec sleep 1000');
      const [stuck, watching] = [
        dialSession(await attach(container, { stdin: false })),
        dialSession(await attach(container, { stdin: false })),
      ];
      stuck.socket.pause();
      await of.start(container);
      await watching.until('400000\n');
      await eventually('the log is whole', async () =>
        (await logged(container)).includes('400000'),
      );
      stuck.socket.resume();
      await assert.rejects(stuck.ended, { kind: 'timeout', message: /took nothing for 10 s/ });
      await remove(container);
    });

    it('hold up no stop, however much their clients do not take', async function () {
      this.timeout(60_000);
      const container = await create('stuck', `exec yes ${'x'.repeat(1000)}`);
      const session = dialSession(await attach(container, { stdin: false }));
      session.socket.pause();
      await of.start(container);
      // Its monitor writes no log any more once it waits for the client.
      let length = -1;
      await eventually('the monitor waits', async () => {
        const before = length;
        length = (await logged(container)).length;
        await systemClock.sleep(300);
        return length > 0 && length === before;
      });
      const beganMs = systemClock.monotonicMs();
      await of.fixture.verbs['stop-container'](
        { containerId: container, timeoutS: 0n },
        of.fixture.context(),
      );
      const tookMs = systemClock.monotonicMs() - beganMs;
      assert.ok(tookMs < 8_000, `${tookMs} ms`);
      assert.equal(of.fixture.worker.store.get(container)?.exitCode, 137);
      session.socket.destroy();
      await remove(container);
    });

    it('have its last output also where it took less input than the client sent', async function () {
      this.timeout(60_000);
      const script = 'echo begun; read line; seq 1 3000; echo over';
      for (const stdinOnce of [true, false]) {
        const container = await create(`deaf-${stdinOnce}`, script, { stdin: true, stdinOnce });
        const session = dialSession(await attach(container));
        await of.start(container);
        await session.until('begun\n');
        session.send(FRAME.stdin, Buffer.alloc(900_000, 'typed\n'));
        assert.equal(await session.ended, 0);
        const wanted = Array.from({ length: 3000 }, (_, index) => `${index + 1}\n`).join('');
        assert.equal(session.stdout(), `begun\n${wanted}over\n`);
        await remove(container);
      }
    });

    it('are its terminal where it has one, of the size that the client says', async () => {
      const script = 'while read line; do stty size; test -t 0 && echo "tty $line"; done';
      const container = await create('tty', script, { stdin: true, stdinOnce: true, tty: true });
      await of.start(container);
      // Which has no end of its input for a client to leave behind.
      const early = dialSession(await attach(container, { tty: true, stderr: false }));
      early.send(FRAME.stdin, 'zero\n');
      await early.until('tty zero\r\n');
      early.socket.destroy();
      const session = dialSession(await attach(container, { tty: true, stderr: false }));
      session.resize(99, 33);
      await systemClock.sleep(200);
      session.send(FRAME.stdin, 'one\n');
      await session.until('tty one\r\n');
      assert.equal(session.stdout(), 'one\r\n33 99\r\ntty one\r\n');
      session.send(FRAME.stdin, '\x04');
      assert.equal(await session.ended, 0);
      await remove(container);
    });

    it('carry many bytes there and back unharmed', async function () {
      this.timeout(60_000);
      const more = { stdin: true, stdinOnce: true };
      const container = await create('much', 'exec cat', more);
      const sums = { sent: createHash('sha256'), received: createHash('sha256') };
      const session = dialSession(await attach(container), {
        onStdout: (chunk) => sums.received.update(chunk),
      });
      await of.start(container);
      function* chunks() {
        for (let index = 0; index < 256; index += 1) {
          sums.sent.update(CHUNK);
          yield CHUNK;
        }
      }
      await session.stream(chunks());
      assert.equal(await session.ended, 0);
      assert.equal(sums.received.digest('hex'), sums.sent.digest('hex'));
      await remove(container);
    });
  });
}
