import assert from 'node:assert/strict';
import { once } from 'node:events';
import { request } from 'node:http';
import type { Socket } from 'node:net';
import type { Logger } from '@cribus/chassis/log.ts';
import { createMetrics } from '@cribus/chassis/metrics.ts';
import { isFailure } from '@cribus/contracts/failure.ts';
import { FRAME } from '@cribus/contracts/session.ts';
import { systemClock } from '@cribus/host/clock.ts';
import { afterEach, beforeEach, describe, it } from 'mocha';
import type { CommandAsk, ForwardAsk, StreamAsk } from './ask.ts';
import { CONTROL, controlFrame, dataHeader, words } from './spdy/frames.ts';
import { createStreamJournal } from './stream-journal.ts';
import { baseUrl, type StreamingServer, startStreamingServer } from './streaming-server.ts';
import { dialChannels } from './testing/channel-client.ts';
import { deferred } from './testing/deferred.ts';
import { type FakeSession, type FakeWorker, startFakeWorker } from './testing/fake-worker.ts';
import {
  createSpdyTestClient,
  dialSpdy,
  dialTcpWire,
  dialTunnelWire,
  type SpdyTestClient,
  type TestStream,
  UpgradeRefused,
} from './testing/spdy-client.ts';

type Play = (session: FakeSession, port?: number) => void;

const V4 = ['v4.channel.k8s.io'];
const EXEC: CommandAsk = {
  kind: 'exec',
  requestId: 'r',
  containerId: 'c',
  handler: 'runc',
  cmd: ['cat'],
  tty: false,
  stdin: true,
  stdout: true,
  stderr: true,
};
const FORWARD: ForwardAsk = { kind: 'port-forward', requestId: 'r', sandboxId: 's', ports: [] };

let worker: FakeWorker;
let server: StreamingServer;
/** What the worker does for each session that is asked for; may raise. */
let play: Play;
let asked: number;
const lines: Record<string, unknown>[] = [];
const log = {
  ...Object.fromEntries(['debug', 'warn', 'error', 'child'].map((name) => [name, () => log])),
  info: (fields: Record<string, unknown>) => lines.push(fields),
} as unknown as Logger;

async function start(changed: { creationMs?: number; idleMs?: number } = {}): Promise<void> {
  const metrics = createMetrics('cri-gateway');
  server = await startStreamingServer({
    clock: systemClock,
    log,
    address: '127.0.0.1',
    port: 0,
    stopping: new AbortController().signal,
    idleMs: 60_000,
    creationMs: 10_000,
    journal: createStreamJournal({ log, metrics, clock: systemClock }),
    sessions: {
      command: async () => {
        asked += 1;
        return worker.session(play);
      },
      forward: async (_ask, port) => {
        asked += 1;
        return worker.session((session) => play(session, port));
      },
    },
    ...changed,
  });
}

/** Sends everything back, and ends with the input. */
const echo: Play = (session) => {
  session.onFrame((type, payload) => {
    if (type === FRAME.stdin) session.send(FRAME.stdout, payload);
    if (type === FRAME.stdinEnd) session.exit(0);
  });
};

async function openCommand(client: SpdyTestClient, ...types: readonly string[]) {
  const streams: Record<string, TestStream> = {};
  for (const streamtype of types) streams[streamtype] = await client.open({ streamtype });
  return (type: string): TestStream => {
    const stream = streams[type];
    assert.ok(stream !== undefined, `no ${type}`);
    return stream;
  };
}

async function refused(dial: Promise<unknown>): Promise<number> {
  const error = await dial.then(
    () => undefined,
    (reason: unknown) => reason,
  );
  assert.ok(error instanceof UpgradeRefused, `not refused: ${error}`);
  return error.status;
}

describe('the streaming server', () => {
  beforeEach(async () => {
    lines.length = 0;
    asked = 0;
    play = echo;
    worker = await startFakeWorker();
    await start();
  });
  afterEach(async () => {
    await server.close();
    await worker.close();
  });

  describe('its URLs', () => {
    it('are absolute, and name loopback where every interface is listened on', () => {
      assert.match(server.urlFor(EXEC), /^http:\/\/127\.0\.0\.1:\d+\/exec\/[\w-]{22,}$/);
      assert.match(server.urlFor({ ...EXEC, kind: 'attach' }), /\/attach\//);
      assert.match(server.urlFor(FORWARD), /\/portforward\//);
      const at = (address: string, family: string) => baseUrl({ address, family, port: 1 });
      assert.equal(at('0.0.0.0', 'IPv4'), 'http://127.0.0.1:1');
      assert.equal(at('::', 'IPv6'), 'http://[::1]:1');
      assert.equal(at('fd00::2', 'IPv6'), 'http://[fd00::2]:1');
    });

    it('are void after one use, whatever came of it, and on the path of another kind', async () => {
      const url = server.urlFor(EXEC);
      assert.equal(await refused(dialSpdy(url, ['v9'])), 403);
      assert.equal(await refused(dialSpdy(url, V4)), 404);
      const other = server.urlFor(EXEC).replace('/exec/', '/attach/');
      assert.equal(await refused(dialSpdy(other, V4)), 404);
      assert.equal(await refused(dialChannels(`${url}x`, V4)), 404);
      assert.equal(asked, 0);
    });

    it('answer 400 to a request that wants no upgrade, or an unknown one', async () => {
      const asking = request(server.urlFor(EXEC)).end();
      const [response] = (await once(asking, 'response')) as [{ statusCode: number }];
      assert.equal(response.statusCode, 400);
      const wire = dialTcpWire(server.urlFor(EXEC), V4, { Upgrade: 'h2c' });
      assert.equal(await refused(wire), 400);
    });
  });

  describe('over SPDY', () => {
    it('takes the first protocol of the client that it knows', async () => {
      const client = await dialSpdy(server.urlFor(EXEC), [
        'v9.channel.k8s.io',
        'v3.channel.k8s.io',
      ]);
      assert.equal(client.wire.protocol, 'v3.channel.k8s.io');
      client.destroy();
    });

    it('carries a command with its input, both outputs and its exit code, and then says goodbye', async () => {
      play = (session) => {
        const kept: Buffer[] = [];
        session.onFrame((type, payload) => {
          if (type === FRAME.stdin) kept.push(payload);
          if (type !== FRAME.stdinEnd) return;
          session.send(FRAME.stdout, Buffer.concat(kept));
          session.send(FRAME.stderr, 'warned');
          session.exit(7);
        });
      };
      const client = await dialSpdy(server.urlFor(EXEC), V4);
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
        { ...lines.at(-1), ms: 0 },
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
        play = (session) => session.exit(exitCode);
        const client = await dialSpdy(server.urlFor({ ...EXEC, stdin: false }), [protocol]);
        const stream = await openCommand(client, 'error', 'stdout', 'stderr');
        assert.equal((await stream('error').all).toString(), expected);
        client.destroy();
      });
    }

    it('tells what kept a command from starting as an internal error', async () => {
      play = (session) => session.fail('not_found', 'no such file "x"');
      const client = await dialSpdy(server.urlFor({ ...EXEC, stdin: false }), V4);
      const stream = await openCommand(client, 'error', 'stdout', 'stderr');
      const status = JSON.parse((await stream('error').all).toString());
      assert.equal(status.reason, 'InternalError');
      assert.equal(status.code, 500);
      assert.match(status.message, /error executing command in container: no such file "x"/);
      client.destroy();
    });

    it('says success when an attached container ends, whatever its exit code', async () => {
      play = (session) => session.exit(9);
      const client = await dialSpdy(server.urlFor({ ...EXEC, kind: 'attach', stdin: false }), V4);
      const stream = await openCommand(client, 'error', 'stdout', 'stderr');
      assert.equal(JSON.parse((await stream('error').all).toString()).status, 'Success');
      client.destroy();
    });

    it('asks the worker only when every stream is there, and hands it the sizes of a terminal', async () => {
      const sizes = deferred<string[]>();
      play = (session) => {
        const seen: string[] = [];
        session.onFrame((type, payload) => {
          if (type !== FRAME.resize) return;
          seen.push(payload.toString());
          if (seen.length === 2) sizes.resolve(seen);
        });
      };
      const ask = { ...EXEC, tty: true, stderr: false };
      const client = await dialSpdy(server.urlFor(ask), V4);
      const stream = await openCommand(client, 'error', 'stdin', 'stdout');
      assert.equal(asked, 0);
      const resize = await client.open({ streamtype: 'resize' });
      resize.write('{"Width":80,"Height":2');
      resize.write('4}\n{"Width":132,"Height":43}\n');
      assert.deepEqual(await sizes.promise, [
        '{"width":80,"height":24}',
        '{"width":132,"height":43}',
      ]);
      assert.equal(asked, 1);
      stream('stdin').reset();
      client.destroy();
    });

    it('closes the connection of a client that does not open its streams in time', async () => {
      await server.close();
      await start({ creationMs: 50 });
      const client = await dialSpdy(server.urlFor(EXEC), V4);
      await openCommand(client, 'error');
      assert.equal(await client.goodbye, 0);
      await client.closed;
      assert.equal(asked, 0);
    });

    it('closes a connection on which nothing has gone either way for the idle time-out', async () => {
      await server.close();
      await start({ idleMs: 100 });
      const gone = deferred();
      play = (session) => void session.closed.then(gone.resolve);
      const client = await dialSpdy(server.urlFor(EXEC), V4);
      await openCommand(client, 'error', 'stdin', 'stdout', 'stderr');
      await client.closed;
      await gone.promise;
    });

    it('hangs up on the worker at once when the client vanishes, also while its input is stuck', async () => {
      const dialled = deferred<FakeSession>();
      play = (session) => {
        session.socket.pause();
        dialled.resolve(session);
      };
      const client = await dialSpdy(server.urlFor(EXEC), V4);
      const stream = await openCommand(client, 'error', 'stdin', 'stdout', 'stderr');
      const session = await dialled.promise;
      const chunk = Buffer.alloc(256 * 1024);
      while (client.wire.socket.writableLength < 4 * chunk.length) {
        stream('stdin').write(chunk);
        await new Promise((resolve) => setImmediate(resolve));
      }
      client.destroy();
      // Its end is told by the kernel although nobody reads.
      session.socket.resume();
      await session.closed;
      const { error } = lines.at(-1) ?? {};
      assert.ok(isFailure(error, 'cancelled'), String(error));
    });

    it('answers a ping and takes settings, windows and unknown frames', async () => {
      const client = await dialSpdy(server.urlFor(EXEC), V4);
      client.raw(controlFrame(CONTROL.settings, 0, words(0)));
      client.raw(controlFrame(CONTROL.windowUpdate, 0, words(0, 1)));
      client.raw(controlFrame(99, 0, words(0)));
      await client.ping(5);
      client.destroy();
    });

    it('refuses streams of unknown types and second ones of a type', async () => {
      const client = await dialSpdy(server.urlFor(EXEC), V4);
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
        const client = await dialSpdy(server.urlFor(EXEC), V4);
        client.raw(bytes);
        assert.equal(await client.goodbye, 1);
        await client.closed;
      });
    }

    it('resets what is sent on a stream that was never opened', async () => {
      const client = await dialSpdy(server.urlFor(EXEC), V4);
      const next = client.open({ streamtype: 'error' });
      await next;
      client.raw(Buffer.concat([dataHeader(99, 0, 1), Buffer.of(1)]));
      await client.ping(1);
      client.destroy();
    });
  });

  describe('over WebSockets', () => {
    for (const [protocol, form] of [
      ['v5.channel.k8s.io', 'json'],
      ['v4.channel.k8s.io', 'json'],
      ['v4.base64.channel.k8s.io', 'json'],
      ['base64.channel.k8s.io', 'text'],
      ['channel.k8s.io', 'text'],
      ['', 'text'],
    ] as const) {
      it(`carries a command by ${protocol === '' ? 'no named protocol' : protocol}`, async () => {
        play = (session) => {
          session.onFrame((type, payload) => {
            if (type !== FRAME.stdin) return;
            session.send(FRAME.stdout, payload);
            session.send(FRAME.stderr, 'warned');
            session.exit(5);
          });
        };
        const client = await dialChannels(
          server.urlFor(EXEC),
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
      const client = await dialChannels(server.urlFor(EXEC), ['v5.channel.k8s.io']);
      client.send(0, 'to the end');
      client.closeChannel(0);
      assert.equal(await client.closed, 1000);
      assert.equal(client.received(1).toString(), 'to the end');
      const old = await dialChannels(server.urlFor(EXEC), V4);
      old.closeChannel(0);
      old.send(0, 'still open');
      assert.equal((await old.until(1, 10)).toString(), 'still open');
      old.destroy();
    });

    it('hands the worker the size of a terminal from channel 4', async () => {
      const size = deferred<string>();
      play = (session) => {
        session.onFrame((type, payload) => {
          if (type === FRAME.resize) size.resolve(payload.toString());
        });
      };
      const ask = { ...EXEC, tty: true, stderr: false };
      const client = await dialChannels(server.urlFor(ask), ['v5.channel.k8s.io']);
      client.send(4, '{"Width":100,"Height":50}');
      assert.equal(await size.promise, '{"width":100,"height":50}');
      client.destroy();
    });

    it('hangs up on the worker when the client vanishes', async () => {
      const gone = deferred();
      play = (session) => {
        session.send(FRAME.stdout, 'x');
        void session.closed.then(gone.resolve);
      };
      const client = await dialChannels(server.urlFor(EXEC), ['v5.channel.k8s.io']);
      await client.until(1, 1);
      client.destroy();
      await gone.promise;
    });

    it('refuses protocols that it does not know', async () => {
      assert.equal(await refused(dialChannels(server.urlFor(EXEC), ['v9.channel.k8s.io'])), 403);
      assert.equal(await refused(dialChannels(server.urlFor(FORWARD), ['v5.channel.k8s.io'])), 403);
      assert.equal(await refused(dialChannels(server.urlFor(FORWARD), V4)), 400);
    });
  });

  describe('forwarding ports', () => {
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
        play = (session, port) => {
          session.send(FRAME.stdout, `${port}:`);
          session.onFrame((type, payload) => {
            if (type === FRAME.stdin) session.send(FRAME.stdout, payload);
            if (type === FRAME.stdinEnd) session.exit(0);
          });
        };
        const client = createSpdyTestClient(await dial(server.urlFor(FORWARD)));
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
      play = (session) => {
        session.send(FRAME.stdout, 'all');
        session.send(FRAME.stdoutEnd, '');
        session.onFrame((type, payload) => type === FRAME.stdin && got.resolve(payload.toString()));
      };
      const client = await dialSpdy(server.urlFor(FORWARD), ['portforward.k8s.io']);
      const { data } = await openPair(client, '1');
      assert.equal((await data.all).toString(), 'all');
      data.write('late');
      assert.equal(await got.promise, 'late');
      client.destroy();
    });

    it('tells why a port could not be reached on the error stream, and resets the data', async () => {
      play = (session) => session.fail('unavailable', 'connection refused');
      const client = await dialSpdy(server.urlFor(FORWARD), ['portforward.k8s.io']);
      const { data, error } = await openPair(client, '1');
      assert.match((await error.all).toString(), /port 80 .*: connection refused/);
      assert.equal(await data.ended, 'reset');
      play = echo;
      const again = await openPair(client, '2');
      again.data.end();
      assert.equal(await again.data.ended, 'end');
      client.destroy();
    });

    it('pairs the streams of a client that sends no request ids by their numbers', async () => {
      const client = await dialSpdy(server.urlFor(FORWARD), ['portforward.k8s.io']);
      await client.open({ streamtype: 'error', port: '80' });
      const data = await client.open({ streamtype: 'data', port: '80' });
      data.write('x');
      data.end();
      assert.equal((await data.all).toString(), 'x');
      client.destroy();
    });

    it('refuses streams without a port, and gives up a stream whose other half does not come', async () => {
      await server.close();
      await start({ creationMs: 50 });
      const client = await dialSpdy(server.urlFor(FORWARD), ['portforward.k8s.io']);
      for (const port of ['', '0', '65536', '1x', '-1']) {
        await assert.rejects(client.open({ streamtype: 'data', port }), /refused/);
      }
      const error = await client.open({ streamtype: 'error', port: '80', requestid: '9' });
      assert.match((await error.all).toString(), /timed out waiting for its streams/);
      client.destroy();
    });

    for (const protocol of ['v4.channel.k8s.io', 'v4.base64.channel.k8s.io']) {
      it(`carries each port of a WebSocket by two channels of ${protocol}`, async () => {
        play = (session, port) => {
          if (port === 81) session.fail('unavailable', 'connection refused');
          else echo(session);
        };
        const client = await dialChannels(`${server.urlFor(FORWARD)}?port=80,81`, [protocol]);
        client.send(0, 'hello');
        assert.deepEqual(await client.until(0, 7), Buffer.from('P\0hello', 'latin1'));
        const error = (await client.until(3, 10)).subarray(2).toString();
        assert.match(error, /port 81 .*connection refused/);
        client.destroy();
      });
    }
  });

  it('ends every stream when it is closed', async () => {
    const gone = deferred();
    play = (session) => void session.closed.then(gone.resolve);
    const client = await dialSpdy(server.urlFor({ ...EXEC, stdin: false }), V4);
    await openCommand(client, 'error', 'stdout', 'stderr');
    await server.close();
    await client.closed;
    await gone.promise;
    await start();
  });

  it('tells a worker that is away as the outcome of the stream', async () => {
    const ask: StreamAsk = { ...EXEC, stdin: false };
    play = (session) => session.socket.destroy();
    const client = await dialSpdy(server.urlFor(ask), V4);
    const stream = await openCommand(client, 'error', 'stdout', 'stderr');
    assert.match((await stream('error').all).toString(), /its worker ended the session/);
    client.destroy();
  });

  it('holds the worker up while a client does not read, and the client while the worker does not', async () => {
    const outOf = deferred<FakeSession>();
    play = outOf.resolve;
    const client = await dialSpdy(server.urlFor(EXEC), V4);
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
