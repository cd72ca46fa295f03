// For tests: what every driver's sessions do, with its real engine under conmon. Each family calls it.

import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { type AddressInfo, createServer, type Socket } from 'node:net';
import { join } from 'node:path';
import type { ContainerConfig } from '@cribus/contracts/gen/cri/v1/api.ts';
import { SandboxRecord } from '@cribus/contracts/gen/node/v1/records.ts';
import { AttachRequest, ExecRequest } from '@cribus/contracts/gen/node/v1/verbs.ts';
import { FRAME } from '@cribus/contracts/session.ts';
import { systemClock } from '@cribus/host/clock.ts';
import { libc } from '@cribus/host/libc.ts';
import { insideNetworkNamespace } from '@cribus/host/namespaces.ts';
import { after, afterEach, before, describe, it } from 'mocha';
import { endStaleExecs } from './kill-exec.ts';
import { dialSession } from './session-dialler.ts';
import { placesOf, requireContainer } from './worker.ts';
import { openWorkerFixture, type WorkerFixture } from './worker-fixture.ts';

export type SessionSuiteOptions = Parameters<typeof openWorkerFixture>[0];

/** Pids of the host whose command line has these words. */
function processesWith(words: string): string[] {
  return readdirSync('/proc').filter((name) => {
    if (!/^\d+$/.test(name)) return false;
    try {
      return readFileSync(`/proc/${name}/cmdline`, 'utf8').replaceAll('\0', ' ').includes(words);
    } catch {
      return false;
    }
  });
}

async function eventually(what: string, check: () => Promise<boolean>): Promise<void> {
  const signal = systemClock.timeout(10_000);
  while (!(await check())) {
    assert.ok(!signal.aborted, what);
    await systemClock.sleep(30);
  }
}

const CHUNK = Buffer.alloc(64 * 1024, 'abcdefghijklmnop\n');

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
      // Inside a Sentry nobody can tell whose child an orphan was.
      const onHost = fixture.worker.driver.signalBy === 'process';
      const away = onHost ? `setsid sh -c '(setsid sleep ${seconds} &); exit' & wait; ` : '';
      const script = `${away}setsid sleep ${seconds} & sh -c 'sleep ${seconds} & wait' & sleep ${seconds}`;
      await assert.rejects(fixture.exec(id, ['sh', '-c', script], 1), { kind: 'timeout' });
      assert.equal(await left(seconds), false, 'nothing is left by the time of the answer');
      const files = () => readdirSync(join(fixture.worker.paths.run, id));
      await eventually('its files are gone', async () => !files().join().includes('exec-'));
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

    describe("to a container's own process", () => {
      const create = async (name: string, script: string, more: Partial<ContainerConfig> = {}) => {
        const command = ['sh', '-c', script];
        return await fixture.create(name, { command, ...more });
      };
      const attach = async (containerId: string, request: Partial<AttachRequest> = {}) =>
        await fixture.verbs.attach(
          AttachRequest.fromPartial({
            ...{ containerId, stdin: true, stdout: true, stderr: true, ...request },
          }),
          fixture.context(),
        );
      const remove = (containerId: string) =>
        fixture.verbs['remove-container']({ containerId }, fixture.context());

      it('carry stdin, both outputs, and end with it', async () => {
        const script = 'while read line; do echo "got $line"; echo "err $line" >&2; done; exit 3';
        const container = await create('once', script, { stdin: true, stdinOnce: true });
        const session = dialSession(await attach(container));
        await start(container);
        session.send(FRAME.stdin, 'one\n');
        await session.until('got one\n');
        session.send(FRAME.stdin, 'two\n');
        session.send(FRAME.stdinEnd);
        assert.equal(await session.ended, 0);
        assert.equal(session.stdout(), 'got one\ngot two\n');
        assert.equal(session.stderr(), 'err one\nerr two\n');
        await fixture.worker.exits.ended(container, systemClock.timeout(10_000));
        assert.equal(fixture.worker.store.get(container)?.exitCode, 3);
        await assert.rejects(attach(container), { kind: 'wrong_state' });
        await remove(container);
      });

      it('leave stdin open for the next client unless it is for one only', async () => {
        const script = 'echo begun; while read line; do echo "got $line"; done';
        const container = await create('open', script, { stdin: true });
        await start(container);
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
        await fixture.verbs['stop-container'](
          { containerId: container, timeoutS: 0n },
          fixture.context(),
        );
        assert.equal(await second.ended, 0);
        await remove(container);
      });

      it('are its terminal where it has one, of the size that the client says', async () => {
        const script = 'while read line; do stty size; test -t 0 && echo "tty $line"; done';
        const container = await create('tty', script, { stdin: true, tty: true });
        await start(container);
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
        await start(container);
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

    describe('to a port of the pod', () => {
      const PORT = 7070;
      const forward = async (port: number, sandbox: SandboxRecord = fixture.sandbox) =>
        await fixture.verbs['port-forward']({ sandbox, port }, fixture.context());
      let closeServer: () => void = () => undefined;
      /** A server of this process in the pod's network namespace, as any in the pod. */
      const listen = async (options: {
        readonly address: string;
        readonly port: number;
        readonly onConnection: (socket: Socket) => void;
      }) => {
        const fd = insideNetworkNamespace(fixture.sandbox.namespaces?.net ?? '', () =>
          listeningSocket(options),
        );
        const server = createServer({ allowHalfOpen: true }, options.onConnection);
        await new Promise<void>((resolve) => server.listen({ fd }, resolve));
        closeServer = () => server.close();
      };
      afterEach(() => closeServer());

      it('carry both directions, which end one by one', async () => {
        const echo = await fixture.create('echo', {
          command: ['sh', '-c', `while :; do nc -l -p ${PORT} -e cat; done`],
        });
        await start(echo);
        await eventually('the server answers', async () => {
          const probe = dialSession(await forward(PORT));
          probe.send(FRAME.stdinEnd);
          return await probe.ended.then(
            () => true,
            () => false,
          );
        });
        await systemClock.sleep(200);
        const session = dialSession(await forward(PORT));
        session.send(FRAME.stdin, 'hello');
        await session.until('hello');
        session.send(FRAME.stdinEnd);
        await session.stdoutEnded;
        assert.equal(await session.ended, 0);
        await fixture.verbs['remove-container']({ containerId: echo }, fixture.context());
      });

      it('still take input after the other side said all', async () => {
        const got: Buffer[] = [];
        await listen({
          address: '127.0.0.1',
          port: 7071,
          onConnection: (socket) => {
            socket.end('all');
            socket.on('data', (chunk: Buffer) => got.push(chunk));
          },
        });
        const session = dialSession(await forward(7071));
        await session.stdoutEnded;
        assert.equal(session.stdout(), 'all');
        session.send(FRAME.stdin, 'late');
        session.send(FRAME.stdinEnd);
        assert.equal(await session.ended, 0);
        assert.equal(Buffer.concat(got).toString(), 'late');
      });

      it('find a server that listens on ::1 alone', async () => {
        const onConnection = (socket: Socket) => socket.end('six');
        await listen({ address: '::1', port: 7072, onConnection });
        const session = dialSession(await forward(7072));
        session.send(FRAME.stdinEnd);
        assert.equal(await session.ended, 0);
        assert.equal(session.stdout(), 'six');
      });

      it('fail with the pod, the port and the reason where nobody listens', async () => {
        const session = dialSession(await forward(7099));
        await assert.rejects(session.ended, {
          kind: 'unavailable',
          message: /pod default\/pod \(.*\): port 7099 can't be reached: .*connection refused/,
        });
        await assert.rejects(forward(0), { kind: 'invalid_argument' });
        await assert.rejects(forward(65_536), { kind: 'invalid_argument' });
        const stopped = SandboxRecord.fromPartial({ ...fixture.sandbox, phase: 2 });
        await assert.rejects(forward(80, stopped), { kind: 'wrong_state' });
      });

      it('reach the host from a pod that has no network of its own', async () => {
        const server = createServer((socket) => socket.end('host'));
        await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
        const { port } = server.address() as AddressInfo;
        const host = SandboxRecord.fromPartial({ ...fixture.sandbox, namespaces: {} });
        const session = dialSession(await forward(port, host));
        session.send(FRAME.stdinEnd);
        assert.equal(await session.ended, 0);
        assert.equal(session.stdout(), 'host');
        server.close();
      });

      it('carry many bytes there and back unharmed, and end with a client that vanished', async function () {
        this.timeout(60_000);
        let connections = 0;
        await listen({
          address: '127.0.0.1',
          port: 7073,
          onConnection: (socket) => {
            connections += 1;
            socket.on('error', () => undefined);
            socket.on('close', () => {
              connections -= 1;
            });
            socket.pipe(socket);
          },
        });
        const sums = { sent: createHash('sha256'), received: createHash('sha256') };
        const session = dialSession(await forward(7073), {
          onStdout: (chunk) => sums.received.update(chunk),
        });
        function* chunks() {
          for (let index = 0; index < 1024; index += 1) {
            sums.sent.update(CHUNK);
            yield CHUNK;
          }
        }
        await session.stream(chunks());
        assert.equal(await session.ended, 0);
        assert.equal(sums.received.digest('hex'), sums.sent.digest('hex'));
        await eventually('the first connection is closed', async () => connections === 0);
        const vanishing = dialSession(await forward(7073));
        vanishing.send(FRAME.stdin, 'x');
        await vanishing.until('x');
        vanishing.socket.destroy();
        await eventually('the connection is closed', async () => connections === 0);
      });
    });
  });
}

/** A socket on which this process listens, made on the calling thread and so in its namespace. */
function listeningSocket(options: { readonly address: string; readonly port: number }): number {
  const six = options.address === '::1';
  // AF_INET6 and AF_INET, SOCK_STREAM with CLOEXEC and NONBLOCK; sockaddr_in6 and sockaddr_in.
  const fd = libc().socket(six ? 10 : 2, 0o2004001, 0);
  const address = Buffer.alloc(six ? 28 : 16);
  address.writeUInt16LE(six ? 10 : 2, 0);
  address.writeUInt16BE(options.port, 2);
  if (six) address[23] = 1;
  else address.set([127, 0, 0, 1], 4);
  assert.equal(libc().bind(fd, address, address.length), 0);
  return fd;
}
