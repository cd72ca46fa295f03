import assert from 'node:assert/strict';
import { isFailure } from '@cribus/contracts/failure.ts';
import { FRAME } from '@cribus/contracts/session.ts';
import { systemClock } from '@cribus/host/clock.ts';
import { describe, it } from 'mocha';
import { CONTROL, controlFrame, dataHeader, words } from '../spdy/frames.ts';
import { deferred } from '../testing/deferred.ts';
import type { FakeSession } from '../testing/fake-worker.ts';
import { dialSpdy } from '../testing/spdy-client.ts';
import { EXEC, openCommand, streamSuite, V4 } from '../testing/stream-suite.ts';

describe('streams over SPDY', () => {
  const world = streamSuite();

  it('takes the first protocol of the client that it knows', async () => {
    const client = await dialSpdy(world.server.urlFor(EXEC), [
      'v9.channel.k8s.io',
      'v3.channel.k8s.io',
    ]);
    assert.equal(client.wire.protocol, 'v3.channel.k8s.io');
    client.destroy();
  });

  it('carries a command with its input, both outputs and its exit code, and then says goodbye', async () => {
    world.play = (session) => {
      const kept: Buffer[] = [];
      session.onFrame((type, payload) => {
        if (type === FRAME.stdin) kept.push(payload);
        if (type !== FRAME.stdinEnd) return;
        session.send(FRAME.stdout, Buffer.concat(kept));
        session.send(FRAME.stderr, 'warned');
        session.exit(7);
      });
    };
    const client = await dialSpdy(world.server.urlFor(EXEC), V4);
    const stream = await openCommand(client, 'error', 'stdin', 'stdout', 'stderr');
    stream('error').end();
    stream('stdin').write('one ');
    stream('stdin').write('two');
    stream('stdin').end();
    assert.equal((await stream('stdout').all).toString(), 'one two');
    assert.equal((await stream('stderr').all).toString(), 'warned');
    assert.equal(await stream('stdout').ended, 'end');
    const status = JSON.parse((await stream('error').all).toString());
    assert.equal(status.status, 'Failure');
    assert.equal(status.reason, 'NonZeroExitCode');
    assert.deepEqual(status.details.causes, [{ reason: 'ExitCode', message: '7' }]);
    assert.equal(await client.goodbye, 0);
    await client.closed;
    assert.deepEqual(
      { ...world.lines.at(-1), ms: 0 },
      {
        request_id: 'r',
        kind: 'exec',
        container_id: 'c',
        protocol: 'SPDY/3.1 v4.channel.k8s.io',
        ms: 0,
        bytes_in: 7,
        bytes_out: 13,
        exit_code: 7,
      },
    );
  });

  for (const [protocol, exitCode, expected] of [
    ['v4.channel.k8s.io', 0, '{"metadata":{},"status":"Success"}'],
    ['v3.channel.k8s.io', 0, ''],
    ['v2.channel.k8s.io', 3, 'command terminated with non-zero exit code: exit code 3'],
    ['channel.k8s.io', 3, 'command terminated with non-zero exit code: exit code 3'],
  ] as const) {
    it(`tells exit code ${exitCode} in the form of ${protocol}`, async () => {
      world.play = (session) => session.exit(exitCode);
      const client = await dialSpdy(world.server.urlFor({ ...EXEC, stdin: false }), [protocol]);
      const stream = await openCommand(client, 'error', 'stdout', 'stderr');
      assert.equal((await stream('error').all).toString(), expected);
      client.destroy();
    });
  }

  it('tells what kept a command from starting as an internal error', async () => {
    world.play = (session) => session.fail('not_found', 'no such file "x"');
    const client = await dialSpdy(world.server.urlFor({ ...EXEC, stdin: false }), V4);
    const stream = await openCommand(client, 'error', 'stdout', 'stderr');
    const status = JSON.parse((await stream('error').all).toString());
    assert.equal(status.reason, 'InternalError');
    assert.equal(status.code, 500);
    assert.match(status.message, /error executing command in container: no such file "x"/);
    client.destroy();
  });

  it('says success when an attached container ends, whatever its exit code', async () => {
    world.play = (session) => session.exit(9);
    const client = await dialSpdy(
      world.server.urlFor({ ...EXEC, kind: 'attach', stdin: false }),
      V4,
    );
    const stream = await openCommand(client, 'error', 'stdout', 'stderr');
    assert.equal(JSON.parse((await stream('error').all).toString()).status, 'Success');
    client.destroy();
  });

  it('asks the worker only when every stream is there, and hands it the sizes of a terminal', async () => {
    const sizes = deferred<string[]>();
    world.play = (session) => {
      const seen: string[] = [];
      session.onFrame((type, payload) => {
        if (type !== FRAME.resize) return;
        seen.push(payload.toString());
        if (seen.length === 2) sizes.resolve(seen);
      });
    };
    const ask = { ...EXEC, tty: true, stderr: false };
    const client = await dialSpdy(world.server.urlFor(ask), V4);
    const stream = await openCommand(client, 'error', 'stdin', 'stdout');
    assert.equal(world.asked, 0);
    const resize = await client.open({ streamtype: 'resize' });
    resize.write('{"Width":80,"Height":2');
    resize.write('4}\n{"Width":132,"Height":43}\n');
    assert.deepEqual(await sizes.promise, [
      '{"width":80,"height":24}',
      '{"width":132,"height":43}',
    ]);
    assert.equal(world.asked, 1);
    stream('stdin').reset();
    client.destroy();
  });

  it('takes a reset of stdin for its end, after what came before', async () => {
    const client = await dialSpdy(world.server.urlFor(EXEC), V4);
    const stream = await openCommand(client, 'error', 'stdin', 'stdout', 'stderr');
    stream('stdin').write('to the end');
    stream('stdin').reset();
    assert.equal((await stream('stdout').all).toString(), 'to the end');
    assert.equal(JSON.parse((await stream('error').all).toString()).status, 'Success');
    client.destroy();
  });

  it('closes the connection of a client that does not open its streams in time', async () => {
    await world.restart({ creationMs: 50 });
    const client = await dialSpdy(world.server.urlFor(EXEC), V4);
    await openCommand(client, 'error');
    assert.equal(await client.goodbye, 0);
    await client.closed;
    assert.equal(world.asked, 0);
  });

  it('closes a connection on which nothing has gone either way for the idle time-out', async () => {
    await world.restart({ idleMs: 100 });
    const gone = deferred();
    world.play = (session) => void session.closed.then(gone.resolve);
    const client = await dialSpdy(world.server.urlFor(EXEC), V4);
    await openCommand(client, 'error', 'stdin', 'stdout', 'stderr');
    await client.closed;
    await gone.promise;
  });

  it('hangs up on the worker at once when the client vanishes, also while its input is stuck', async () => {
    const dialled = deferred<FakeSession>();
    world.play = (session) => {
      session.socket.pause();
      dialled.resolve(session);
    };
    const client = await dialSpdy(world.server.urlFor(EXEC), V4);
    const stream = await openCommand(client, 'error', 'stdin', 'stdout', 'stderr');
    const session = await dialled.promise;
    const chunk = Buffer.alloc(256 * 1024);
    while (client.wire.socket.writableLength < 4 * chunk.length) {
      stream('stdin').write(chunk);
      await new Promise((resolve) => setImmediate(resolve));
    }
    client.destroy();
    while (!isFailure(world.lines.at(-1)?.['error'])) await systemClock.sleep(20);
    session.socket.resume();
    await session.closed;
    const { error } = world.lines.at(-1) ?? {};
    assert.ok(isFailure(error, 'cancelled'), String(error));
  });

  it('answers a ping and takes settings, windows and unknown frames', async () => {
    const client = await dialSpdy(world.server.urlFor(EXEC), V4);
    client.raw(controlFrame(CONTROL.settings, 0, words(0)));
    client.raw(controlFrame(CONTROL.windowUpdate, 0, words(0, 1)));
    client.raw(controlFrame(99, 0, words(0)));
    await client.ping(5);
    client.destroy();
  });

  it('refuses streams of unknown types and second ones of a type', async () => {
    const client = await dialSpdy(world.server.urlFor(EXEC), V4);
    await openCommand(client, 'error');
    await assert.rejects(client.open({ streamtype: 'error' }), /refused/);
    await assert.rejects(client.open({ streamtype: 'other' }), /refused/);
    await assert.rejects(client.open({}), /refused/);
    client.destroy();
  });

  for (const [what, bytes] of [
    ['frames of another version', Buffer.from('8002000100000000', 'hex')],
    ['an endless control frame', Buffer.from('8003000100ffffff', 'hex')],
    ['a reply to nothing', controlFrame(CONTROL.synReply, 0, words(2))],
    ['a header block that is none', controlFrame(CONTROL.synStream, 0, Buffer.alloc(40, 1))],
    ['a stream frame that ends too early', controlFrame(CONTROL.synStream, 0, Buffer.alloc(2))],
  ] as const) {
    it(`cuts off a client that sends ${what}`, async () => {
      const client = await dialSpdy(world.server.urlFor(EXEC), V4);
      client.raw(bytes);
      assert.equal(await client.goodbye, 1);
      await client.closed;
    });
  }

  it('resets what is sent on a stream that was never opened', async () => {
    const client = await dialSpdy(world.server.urlFor(EXEC), V4);
    const next = client.open({ streamtype: 'error' });
    await next;
    client.raw(Buffer.concat([dataHeader(99, 0, 1), Buffer.of(1)]));
    await client.ping(1);
    client.destroy();
  });
});
