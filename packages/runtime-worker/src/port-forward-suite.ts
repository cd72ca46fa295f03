// For tests: what every driver's forwarded ports do.

import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { type AddressInfo, createServer, type Socket } from 'node:net';
import { SandboxRecord } from '@cribus/contracts/gen/node/v1/records.ts';
import { FRAME } from '@cribus/contracts/session.ts';
import { systemClock } from '@cribus/host/clock.ts';
import { libc } from '@cribus/host/libc.ts';
import { insideNetworkNamespace } from '@cribus/host/namespaces.ts';
import { afterEach, describe, it } from 'mocha';
import { dialSession } from './session-dialler.ts';
import { CHUNK, eventually, type SuiteWorker } from './suite-steps.ts';

export function portForwardSuite(of: SuiteWorker): void {
  describe('to a port of the pod', () => {
    const PORT = 7070;
    const forward = async (port: number, sandbox: SandboxRecord = of.fixture.sandbox) =>
      await of.fixture.verbs['port-forward']({ sandbox, port }, of.fixture.context());
    let closeServer: () => void = () => undefined;
    /** A server of this process in the pod's network namespace, as any in the pod. */
    const listen = async (options: {
      readonly address: string;
      readonly port: number;
      readonly onConnection: (socket: Socket) => void;
    }) => {
      const fd = insideNetworkNamespace(of.fixture.sandbox.namespaces?.net ?? '', () =>
        listeningSocket(options),
      );
      const server = createServer({ allowHalfOpen: true }, options.onConnection);
      await new Promise<void>((resolve) => server.listen({ fd }, resolve));
      closeServer = () => server.close();
    };
    afterEach(() => closeServer());

    it('carry both directions, which end one by one', async () => {
      const echo = await of.fixture.create('echo', {
        command: ['sh', '-c', `while :; do nc -l -p ${PORT} -e cat; done`],
      });
      await of.start(echo);
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
      await of.fixture.verbs['remove-container']({ containerId: echo }, of.fixture.context());
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

    it('say that they were reset, also where the client was too slow to see it', async () => {
      let sizeBytes = 100_000;
      await listen({
        address: '127.0.0.1',
        port: 7074,
        onConnection: (socket) => {
          socket.on('error', () => undefined);
          socket.write(Buffer.alloc(sizeBytes, 'a'));
          // Where what is left in the kernel is read in one short piece, libuv takes it for an end.
          sizeBytes += 60_000;
          void systemClock.sleep(300).then(() => socket.resetAndDestroy());
        },
      });
      const ends = Array.from({ length: 12 }, async () => {
        const session = dialSession(await forward(7074));
        await session.until('a');
        session.socket.pause();
        await systemClock.sleep(500);
        session.socket.resume();
        await Promise.race([session.ended, session.stdoutEnded]);
      });
      for (const end of await Promise.allSettled(ends)) {
        const { reason } = end as PromiseRejectedResult;
        assert.match(`${reason}`, /port 7074 broke/);
        assert.equal(reason.kind, 'unavailable');
      }
    });

    it('end well where the other side said all, though it is hung up on then', async () => {
      await listen({
        address: '127.0.0.1',
        port: 7075,
        onConnection: (socket) => {
          socket.on('error', () => undefined);
          // Closed in both directions: what the client still sends is answered by a reset.
          socket.end('all', () => socket.destroy());
        },
      });
      const session = dialSession(await forward(7075));
      await session.until('a');
      session.socket.pause();
      session.send(FRAME.stdin, 'late');
      await systemClock.sleep(100);
      session.send(FRAME.stdin, 'later');
      await systemClock.sleep(100);
      session.socket.resume();
      session.send(FRAME.stdinEnd);
      assert.equal(await session.ended, 0);
      assert.equal(session.stdout(), 'all');
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
      const stopped = SandboxRecord.fromPartial({ ...of.fixture.sandbox, phase: 2 });
      await assert.rejects(forward(80, stopped), { kind: 'wrong_state' });
    });

    it('reach the host from a pod that has no network of its own', async () => {
      const server = createServer((socket) => socket.end('host'));
      await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
      const { port } = server.address() as AddressInfo;
      const host = SandboxRecord.fromPartial({ ...of.fixture.sandbox, namespaces: {} });
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
