// For tests: what every driver's attached sessions do.

import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import type { ContainerConfig } from '@cribus/contracts/gen/cri/v1/api.ts';
import { AttachRequest } from '@cribus/contracts/gen/node/v1/verbs.ts';
import { FRAME } from '@cribus/contracts/session.ts';
import { systemClock } from '@cribus/host/clock.ts';
import { describe, it } from 'mocha';
import { dialSession } from './session-dialler.ts';
import { CHUNK, type SuiteWorker } from './suite-steps.ts';

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
      await systemClock.sleep(100);
      second.send(FRAME.stdin, 'two\n');
      await Promise.all([second.until('got two\n'), watching.until('got two\n')]);
      assert.equal(second.stdout(), 'got two\n');
      watching.socket.destroy();
      await of.fixture.verbs['stop-container'](
        { containerId: container, timeoutS: 0n },
        of.fixture.context(),
      );
      assert.equal(await second.ended, 0);
      await remove(container);
    });

    it('are its terminal where it has one, of the size that the client says', async () => {
      const script = 'while read line; do stty size; test -t 0 && echo "tty $line"; done';
      const container = await create('tty', script, { stdin: true, tty: true });
      await of.start(container);
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
