// How long the output of a container waits for those who watch it, on a clock of the test's own.

import assert from 'node:assert/strict';
import { PassThrough } from 'node:stream';
import type { PacketSocket } from '@cribus/host/packet-socket.ts';
import { beforeEach, describe, it } from 'mocha';
import { type AttachedOutputs, createAttachedOutputs } from './attached-outputs.ts';
import type { SessionChannel } from './session-channel.ts';
import type { Worker } from './worker.ts';

const STDOUT = Buffer.from([2]);
const BOTH = { stdout: true, stderr: true };
const never = new AbortController().signal;
const turn = () => new Promise<void>((resolve) => setImmediate(resolve));

/** A client that is full after each packet, until it is told to drain. */
function createClient() {
  const client = {
    said: '',
    queued: 0,
    takesPerLook: 0,
    full: true,
    drain: (): void => undefined,
    channel: {
      gone: never,
      send: (_type: number, payload: Uint8Array) => {
        client.said += Buffer.from(payload).toString();
        client.queued = 100;
        return !client.full;
      },
      queuedBytes: () => {
        client.queued -= client.takesPerLook;
        if (client.queued <= 0) client.drain();
        return client.queued;
      },
      onceFree: (resume: () => void) => {
        client.drain = resume;
      },
    } as unknown as SessionChannel,
  };
  return client;
}

describe('the outputs of an attached connection', () => {
  let stream: PassThrough;
  let outputs: AttachedOutputs;
  let nowMs: number;
  let killTimes: Worker['killTimes'];
  let rest: Buffer[];
  const packet = (text: string) => Buffer.concat([STDOUT, Buffer.from(text)]);
  const say = (text: string) => stream.write(packet(text));

  const watchAnew = () => {
    stream = new PassThrough();
    nowMs = 0;
    rest = [];
    killTimes = new Map();
    const clock = {
      monotonicMs: () => nowMs,
      sleep: async (ms: number) => {
        await turn();
        nowMs += ms;
      },
    };
    const worker = { service: { clock }, killTimes } as unknown as Worker;
    const packets = { stream, readRest: () => rest.splice(0) } as unknown as PacketSocket;
    outputs = createAttachedOutputs(worker, 'abc', packets);
  };
  beforeEach(watchAnew);

  it('wait for a client as long as it takes something now and then', async () => {
    const slow = createClient();
    slow.takesPerLook = 1;
    const over = outputs.passTo({ request: BOTH, channel: slow.channel }, never);
    say('one');
    await turn();
    assert.ok(stream.isPaused());
    while (stream.isPaused()) await turn();
    assert.ok(nowMs > 20_000, `${nowMs} ms`);
    say('two');
    while (slow.said !== 'onetwo') await turn();
    stream.end();
    await over;
  });

  it('wait ten seconds for one that takes nothing, and go on for the others', async () => {
    const [stuck, other] = [createClient(), createClient()];
    other.full = false;
    const [lost, over] = [stuck, other].map(({ channel }) =>
      outputs.passTo({ request: BOTH, channel }, never),
    );
    say('one');
    await assert.rejects(lost ?? Promise.resolve(), {
      kind: 'timeout',
      message: /nothing for 10 s/,
    });
    assert.equal(nowMs, 10_000);
    say('two');
    stream.end();
    await over;
    assert.deepEqual([stuck.said, other.said], ['one', 'onetwo']);
  });

  it('wait a second for one whose container has been killed', async () => {
    killTimes.set('abc', { atMs: 5_000, hurry: [] });
    const stuck = createClient();
    const lost = outputs.passTo({ request: BOTH, channel: stuck.channel }, never);
    say('one');
    await assert.rejects(lost, { kind: 'timeout' });
    assert.equal(nowMs, 5_000);
  });

  it('are passed on to the last packet, once, also where the connection breaks', async () => {
    for (const end of [() => stream.end(), () => stream.destroy(new Error('ECONNRESET'))]) {
      const client = createClient();
      client.full = false;
      const over = outputs.passTo({ request: BOTH, channel: client.channel }, never);
      say('one');
      await turn();
      rest = [packet('two'), packet('three')];
      end();
      await over;
      assert.equal(client.said, 'onetwothree');
      watchAnew();
    }
  });

  it('are dropped where nobody watches, and wait for none who left', async () => {
    const leaving = new AbortController();
    const stuck = createClient();
    const left = outputs.passTo({ request: BOTH, channel: stuck.channel }, leaving.signal);
    say('one');
    await turn();
    assert.ok(stream.isPaused());
    leaving.abort();
    assert.equal(await left, false);
    assert.ok(!stream.isPaused());
    say('two');
    stream.end();
    await outputs.ended;
    assert.equal(stuck.said, 'one');
    assert.equal(await outputs.passTo({ request: BOTH, channel: stuck.channel }, never), true);
  });
});
