import assert from 'node:assert/strict';
import { once } from 'node:events';
import { request } from 'node:http';
import type { Socket } from 'node:net';
import { FRAME } from '@cribus/contracts/session.ts';
import { systemClock } from '@cribus/host/clock.ts';
import { describe, it } from 'mocha';
import type { StreamAsk } from './ask.ts';
import { baseUrl } from './streaming-server.ts';
import { dialChannels } from './testing/channel-client.ts';
import { deferred } from './testing/deferred.ts';
import type { FakeSession } from './testing/fake-worker.ts';
import { dialSpdy, dialTcpWire } from './testing/spdy-client.ts';
import { EXEC, FORWARD, openCommand, refused, streamSuite, V4 } from './testing/stream-suite.ts';

describe('the streaming server', () => {
  const world = streamSuite();

  describe('its URLs', () => {
    it('are absolute, and name loopback where every interface is listened on', () => {
      assert.match(world.server.urlFor(EXEC), /^http:\/\/127\.0\.0\.1:\d+\/exec\/[\w-]{22,}$/);
      assert.match(world.server.urlFor({ ...EXEC, kind: 'attach' }), /\/attach\//);
      assert.match(world.server.urlFor(FORWARD), /\/portforward\//);
      const at = (address: string, family: string) => baseUrl({ address, family, port: 1 });
      assert.equal(at('0.0.0.0', 'IPv4'), 'http://127.0.0.1:1');
      assert.equal(at('::', 'IPv6'), 'http://[::1]:1');
      assert.equal(at('fd00::2', 'IPv6'), 'http://[fd00::2]:1');
    });

    it('are void after one use, whatever came of it, and on the path of another kind', async () => {
      const url = world.server.urlFor(EXEC);
      assert.equal(await refused(dialSpdy(url, ['v9'])), 403);
      assert.equal(await refused(dialSpdy(url, V4)), 404);
      const other = world.server.urlFor(EXEC).replace('/exec/', '/attach/');
      assert.equal(await refused(dialSpdy(other, V4)), 404);
      assert.equal(await refused(dialChannels(`${url}x`, V4)), 404);
      assert.equal(world.asked, 0);
    });

    it('answer 400 to a request that wants no upgrade, or an unknown one', async () => {
      const asking = request(world.server.urlFor(EXEC)).end();
      const [response] = (await once(asking, 'response')) as [{ statusCode: number }];
      assert.equal(response.statusCode, 400);
      const wire = dialTcpWire(world.server.urlFor(EXEC), V4, { Upgrade: 'h2c' });
      assert.equal(await refused(wire), 400);
    });
  });

  it('ends every stream when it is closed', async () => {
    const gone = deferred();
    world.play = (session) => void session.closed.then(gone.resolve);
    const client = await dialSpdy(world.server.urlFor({ ...EXEC, stdin: false }), V4);
    await openCommand(client, 'error', 'stdout', 'stderr');
    await world.server.close();
    await client.closed;
    await gone.promise;
  });

  it('tells a worker that is away as the outcome of the stream', async () => {
    const ask: StreamAsk = { ...EXEC, stdin: false };
    world.play = (session) => session.socket.destroy();
    const client = await dialSpdy(world.server.urlFor(ask), V4);
    const stream = await openCommand(client, 'error', 'stdout', 'stderr');
    assert.match((await stream('error').all).toString(), /its worker ended the session/);
    client.destroy();
  });

  it('holds the worker up while a client does not read, and the client while the worker does not', async () => {
    const outOf = deferred<FakeSession>();
    world.play = outOf.resolve;
    const client = await dialSpdy(world.server.urlFor(EXEC), V4);
    const stream = await openCommand(client, 'error', 'stdin', 'stdout', 'stderr');
    const session = await outOf.promise;
    const piece = Buffer.alloc(64 * 1024, 'x');
    const fill = async (socket: Socket, write: () => unknown): Promise<number> => {
      let bytes = 0;
      // Once it is full it must stay so: what is between has only sockets to keep bytes in.
      for (let stuck = 0; stuck < 20; ) {
        if (!socket.writableNeedDrain) {
          write();
          bytes += piece.length;
          stuck = 0;
        } else {
          stuck += 1;
          await systemClock.sleep(10);
        }
        assert.ok(bytes < 64 * 1024 * 1024, 'nothing holds it up');
      }
      return bytes;
    };
    client.wire.socket.pause();
    const out = await fill(session.socket, () => session.send(FRAME.stdout, piece));
    client.wire.socket.resume();
    let received = 0;
    const all = deferred();
    stream('stdout').onData((part) => {
      received += part.length;
      if (received >= out) all.resolve();
    });
    await all.promise;
    session.socket.pause();
    const given = await fill(client.wire.socket, () => stream('stdin').write(piece));
    let taken = 0;
    const done = deferred();
    session.onFrame((_type, payload) => {
      taken += payload.length;
      if (taken >= given) done.resolve();
    });
    session.socket.resume();
    await done.promise;
    assert.equal(received, out);
    client.destroy();
  });
});
