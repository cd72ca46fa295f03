import assert from 'node:assert/strict';
import { FRAME } from '@cribus/contracts/session.ts';
import { describe, it } from 'mocha';
import { dialChannels } from '../testing/channel-client.ts';
import { deferred } from '../testing/deferred.ts';
import { EXEC, FORWARD, refused, streamSuite, V4 } from '../testing/stream-suite.ts';

describe('streams over WebSockets', () => {
  const world = streamSuite();

  for (const [protocol, form] of [
    ['v5.channel.k8s.io', 'json'],
    ['v4.channel.k8s.io', 'json'],
    ['v4.base64.channel.k8s.io', 'json'],
    ['base64.channel.k8s.io', 'text'],
    ['channel.k8s.io', 'text'],
    ['', 'text'],
  ] as const) {
    it(`carries a command by ${protocol === '' ? 'no named protocol' : protocol}`, async () => {
      world.play = (session) => {
        session.onFrame((type, payload) => {
          if (type !== FRAME.stdin) return;
          session.send(FRAME.stdout, payload);
          session.send(FRAME.stderr, 'warned');
          session.exit(5);
        });
      };
      const client = await dialChannels(
        world.server.urlFor(EXEC),
        protocol === '' ? [] : ['v9.channel.k8s.io', protocol],
      );
      assert.equal(client.protocol, protocol);
      client.send(0, 'input');
      assert.equal(await client.closed, 1000);
      assert.equal(client.received(1).toString(), 'input');
      assert.equal(client.received(2).toString(), 'warned');
      const told = client.received(3).toString();
      assert.equal(
        form === 'json' ? JSON.parse(told).details.causes[0].message : told,
        {
          json: '5',
          text: 'command terminated with non-zero exit code: exit code 5',
        }[form],
      );
    });
  }

  it('ends stdin by the close message of v5, and takes it for nothing in v4', async () => {
    const client = await dialChannels(world.server.urlFor(EXEC), ['v5.channel.k8s.io']);
    client.send(0, 'to the end');
    client.closeChannel(0);
    assert.equal(await client.closed, 1000);
    assert.equal(client.received(1).toString(), 'to the end');
    const old = await dialChannels(world.server.urlFor(EXEC), V4);
    old.closeChannel(0);
    old.send(0, 'still open');
    assert.equal((await old.until(1, 10)).toString(), 'still open');
    old.destroy();
  });

  it('hands the worker the size of a terminal from channel 4', async () => {
    const size = deferred<string>();
    world.play = (session) => {
      session.onFrame((type, payload) => {
        if (type === FRAME.resize) size.resolve(payload.toString());
      });
    };
    const ask = { ...EXEC, tty: true, stderr: false };
    const client = await dialChannels(world.server.urlFor(ask), ['v5.channel.k8s.io']);
    client.send(4, '{"Width":100,"Height":50}');
    assert.equal(await size.promise, '{"width":100,"height":50}');
    client.destroy();
  });

  it('hangs up on the worker when the client vanishes', async () => {
    const gone = deferred();
    world.play = (session) => {
      session.send(FRAME.stdout, 'x');
      void session.closed.then(gone.resolve);
    };
    const client = await dialChannels(world.server.urlFor(EXEC), ['v5.channel.k8s.io']);
    await client.until(1, 1);
    client.destroy();
    await gone.promise;
  });

  it('refuses protocols that it does not know', async () => {
    assert.equal(
      await refused(dialChannels(world.server.urlFor(EXEC), ['v9.channel.k8s.io'])),
      403,
    );
    assert.equal(
      await refused(dialChannels(world.server.urlFor(FORWARD), ['v5.channel.k8s.io'])),
      403,
    );
    assert.equal(await refused(dialChannels(world.server.urlFor(FORWARD), V4)), 400);
  });
});
