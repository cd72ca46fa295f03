import assert from 'node:assert/strict';
import { once } from 'node:events';
import { connect, createServer, type Server, type Socket } from 'node:net';
import { type Clock, systemClock } from '@cribus/host/clock.ts';
import { afterEach, beforeEach, describe, it } from 'mocha';
import { createClientSocket } from './client-socket.ts';

/** A second of it passes in a millisecond. */
const FAST: Clock = {
  ...systemClock,
  monotonicMs: () => systemClock.monotonicMs() * 1_000,
  sleep: (ms, signal) => systemClock.sleep(ms / 1_000, signal),
};
const HOUR_MS = 3_600_000;
const MINUTES_OF_IT_MS = 200;

describe('the socket of a client', () => {
  let server: Server;
  let socket: Socket;
  /** The client's end, which never closes of itself. */
  let peer: Socket;
  beforeEach(async () => {
    server = createServer({ allowHalfOpen: true });
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    const address = server.address();
    assert.ok(address !== null && typeof address === 'object');
    const { port } = address;
    peer = connect({ port, host: '127.0.0.1', allowHalfOpen: true });
    [[socket]] = await Promise.all([
      once(server, 'connection') as Promise<[Socket]>,
      once(peer, 'connect'),
    ]);
    peer.on('error', () => peer.destroy());
  });
  afterEach(() => {
    peer.destroy();
    socket.destroy();
    server.close();
  });

  const take = (idleMs: number) =>
    createClientSocket({ socket, probe: () => undefined, clock: FAST, idleMs });

  /** More than the kernel takes; answers how much it is. */
  function fill(): number {
    const chunk = Buffer.alloc(1024 * 1024, 'x');
    let bytes = 0;
    for (; bytes < 32 * chunk.length; bytes += chunk.length) socket.write(chunk);
    return bytes;
  }

  it('waits with its end until a client that does not read has everything, and then for its goodbye', async () => {
    const client = take(HOUR_MS);
    const sent = fill();
    socket.end();
    client.linger();
    await systemClock.sleep(MINUTES_OF_IT_MS);
    assert.ok(client.isHolding() && !client.closed.aborted);
    let received = 0;
    peer.on('data', (piece: Buffer) => {
      received += piece.length;
    });
    await once(peer, 'end');
    assert.equal(received, sent);
    while (!client.closed.aborted) await systemClock.sleep(5);
  });

  it('gives up a client that does not read when it has been idle for too long', async () => {
    const client = take(MINUTES_OF_IT_MS * 1_000);
    fill();
    client.linger();
    while (!client.closed.aborted) await systemClock.sleep(5);
  });

  it('gives up a client that does not close its side after ours, whoever closed that', async () => {
    const client = take(HOUR_MS);
    socket.end('bye');
    while (!client.closed.aborted) await systemClock.sleep(5);
  });
});
