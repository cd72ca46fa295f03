import assert from 'node:assert/strict';
import { FRAME } from '@cribus/contracts/session.ts';
import { systemClock } from '@cribus/host/clock.ts';
import { describe, it } from 'mocha';
import { dialChannels } from './testing/channel-client.ts';
import { deferred } from './testing/deferred.ts';
import type { FakeSession } from './testing/fake-worker.ts';
import {
  createSpdyTestClient,
  dialSpdy,
  dialTcpWire,
  dialTunnelWire,
  type SpdyTestClient,
} from './testing/spdy-client.ts';
import { echo, FORWARD, streamSuite, V4 } from './testing/stream-suite.ts';

describe('forwarded ports', () => {
  const world = streamSuite();

  async function openPair(client: SpdyTestClient, requestid: string, port = '80') {
    const error = await client.open({ streamtype: 'error', port, requestid });
    const data = await client.open({ streamtype: 'data', port, requestid });
    return { error, data };
  }

  for (const [how, dial] of [
    ['SPDY', (url: string) => dialTcpWire(url, ['portforward.k8s.io'])],
    ['SPDY in a WebSocket', dialTunnelWire],
  ] as const) {
    it(`carries several connections over one of ${how}, each with its own half-closes`, async () => {
      world.play = (session, port) => {
        session.send(FRAME.stdout, `${port}:`);
        session.onFrame((type, payload) => {
          if (type === FRAME.stdin) session.send(FRAME.stdout, payload);
          if (type === FRAME.stdinEnd) session.exit(0);
        });
      };
      const client = createSpdyTestClient(await dial(world.server.urlFor(FORWARD)));
      const first = await openPair(client, '1', '80');
      const second = await openPair(client, '2', '443');
      second.data.write('b');
      first.data.write('a');
      first.data.end();
      assert.equal((await first.data.all).toString(), '80:a');
      assert.equal((await first.error.all).length, 0);
      second.data.write('c');
      second.data.end();
      assert.equal((await second.data.all).toString(), '443:bc');
      assert.equal(await second.error.ended, 'end');
      client.destroy();
    });
  }

  it('closes the output of one connection while its input is still taken', async () => {
    const got = deferred<string>();
    world.play = (session) => {
      session.send(FRAME.stdout, 'all');
      session.send(FRAME.stdoutEnd, '');
      session.onFrame((type, payload) => type === FRAME.stdin && got.resolve(payload.toString()));
    };
    const client = await dialSpdy(world.server.urlFor(FORWARD), ['portforward.k8s.io']);
    const { data } = await openPair(client, '1');
    assert.equal((await data.all).toString(), 'all');
    data.write('late');
    assert.equal(await got.promise, 'late');
    client.destroy();
  });

  it('ends the error stream with the output, for which some clients wait before they end their input', async () => {
    world.play = (session) => {
      session.send(FRAME.stdoutEnd, '');
      session.onFrame((type) => type === FRAME.stdinEnd && session.exit(0));
    };
    const client = await dialSpdy(world.server.urlFor(FORWARD), ['portforward.k8s.io']);
    const { data, error } = await openPair(client, '1');
    assert.equal(await data.ended, 'end');
    assert.equal(await error.ended, 'end');
    assert.equal((await error.all).length, 0);
    assert.equal(world.lines.at(-1)?.['exit_code'], undefined, 'its input is open');
    data.end();
    while (world.lines.at(-1)?.['exit_code'] !== 0) await systemClock.sleep(5);
    client.destroy();
  });

  it('hangs up on the pod when the client resets a connection, and serves its others', async () => {
    const hungUp = deferred();
    world.play = (session) => {
      session.send(FRAME.stdout, 'endless');
      void session.closed.then(hungUp.resolve);
    };
    const client = await dialSpdy(world.server.urlFor(FORWARD), ['portforward.k8s.io']);
    for (const endsFirst of [false, true]) {
      const { data, error } = await openPair(client, String(endsFirst));
      await new Promise((resolve) => data.onData(resolve));
      if (endsFirst) data.end();
      data.reset();
      assert.equal(await error.ended, 'end');
      assert.equal((await error.all).length, 0, 'kubectl would give up the whole connection');
      assert.match(String(world.lines.at(-1)?.['error']), /the client gave it up/);
    }
    await hungUp.promise;
    world.play = echo;
    const { data } = await openPair(client, 'next');
    data.write('x');
    data.end();
    assert.equal((await data.all).toString(), 'x');
    client.destroy();
  });

  it('takes a reset for the proper end of a connection that the pod has ended', async () => {
    const hungUp = deferred();
    world.play = (session) => {
      session.send(FRAME.stdoutEnd, '');
      void session.closed.then(hungUp.resolve);
    };
    const client = await dialSpdy(world.server.urlFor(FORWARD), ['portforward.k8s.io']);
    const { data } = await openPair(client, '1');
    await data.ended;
    data.reset();
    await hungUp.promise;
    assert.equal(world.lines.at(-1)?.['exit_code'], 0);
    client.destroy();
  });

  it('ends the errors no sooner than a client is quiet that sends on after the end of the output', async () => {
    let taken = 0;
    world.play = (session) => {
      session.send(FRAME.stdoutEnd, '');
      session.onFrame((type) => {
        if (type === FRAME.stdin) taken += 1;
        if (type === FRAME.stdinEnd) session.exit(0);
      });
    };
    const client = await dialSpdy(world.server.urlFor(FORWARD), ['portforward.k8s.io']);
    const { data, error } = await openPair(client, '1');
    let hasEnded = false;
    void error.ended.then(() => {
      hasEnded = true;
    });
    assert.equal(await data.ended, 'end');
    for (let piece = 0; piece < 15; piece += 1) {
      data.write('late');
      await systemClock.sleep(100);
      assert.ok(!hasEnded, `after ${piece} pieces`);
    }
    assert.equal(await error.ended, 'end');
    assert.ok(taken > 0);
    client.destroy();
  });

  it('tells why a port could not be reached on the error stream, and resets the data', async () => {
    world.play = (session) => session.fail('unavailable', 'connection refused');
    const client = await dialSpdy(world.server.urlFor(FORWARD), ['portforward.k8s.io']);
    const { data, error } = await openPair(client, '1');
    assert.match((await error.all).toString(), /port 80 .*: connection refused/);
    assert.equal(await data.ended, 'reset');
    world.play = echo;
    const again = await openPair(client, '2');
    again.data.end();
    assert.equal(await again.data.ended, 'end');
    client.destroy();
  });

  it('pairs the streams of a client that sends no request ids by their numbers', async () => {
    const client = await dialSpdy(world.server.urlFor(FORWARD), ['portforward.k8s.io']);
    await client.open({ streamtype: 'error', port: '80' });
    const data = await client.open({ streamtype: 'data', port: '80' });
    data.write('x');
    data.end();
    assert.equal((await data.all).toString(), 'x');
    client.destroy();
  });

  it('refuses streams without a port, and gives up a stream whose other half does not come', async () => {
    await world.restart({ creationMs: 50 });
    const client = await dialSpdy(world.server.urlFor(FORWARD), ['portforward.k8s.io']);
    for (const port of ['', '0', '65536', '1x', '-1']) {
      await assert.rejects(client.open({ streamtype: 'data', port }), /refused/);
    }
    const error = await client.open({ streamtype: 'error', port: '80', requestid: '9' });
    assert.match((await error.all).toString(), /timed out waiting for its streams/);
    client.destroy();
  });

  for (const protocol of ['v4.channel.k8s.io', 'v4.base64.channel.k8s.io']) {
    it(`carries each port of a WebSocket by two channels of ${protocol}`, async () => {
      world.play = (session, port) => {
        if (port === 81) session.fail('unavailable', 'connection refused');
        else echo(session);
      };
      const client = await dialChannels(`${world.server.urlFor(FORWARD)}?port=80,81`, [protocol]);
      client.send(0, 'hello');
      assert.deepEqual(await client.until(0, 7), Buffer.from('P\0hello', 'latin1'));
      const error = (await client.until(3, 10)).subarray(2).toString();
      assert.match(error, /port 81 .*connection refused/);
      client.destroy();
    });
  }

  it('ends a WebSocket of channels when the pod has ended each of its connections', async () => {
    const dialled = { 80: deferred<FakeSession>(), 81: deferred<FakeSession>() };
    world.play = (session, port) => dialled[port === 80 ? 80 : 81].resolve(session);
    const client = await dialChannels(`${world.server.urlFor(FORWARD)}?port=80,81`, V4);
    for (const session of [await dialled[80].promise, await dialled[81].promise]) {
      const inputEnded = deferred();
      session.onFrame((type) => type === FRAME.stdinEnd && inputEnded.resolve());
      session.send(FRAME.stdout, 'all');
      session.send(FRAME.stdoutEnd, '');
      await inputEnded.promise;
      session.exit(0);
    }
    assert.equal(await client.closed, 1000);
    for (const [channel, port] of [
      [0, 'P\0'],
      [2, 'Q\0'],
    ] as const) {
      assert.equal(client.received(channel).toString('latin1'), `${port}all`);
    }
  });
});
