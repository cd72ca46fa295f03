// What a stream that is sent to a session's dialler leaves out: nothing.

import assert from 'node:assert/strict';
import { PassThrough } from 'node:stream';
import { FRAME } from '@cribus/contracts/session.ts';
import { describe, it } from 'mocha';
import { pump, type SessionChannel } from './session-channel.ts';

const turn = () => new Promise<void>((resolve) => setImmediate(resolve));

/** A dialler that is full after each chunk, until it is told to drain. */
function createDialler() {
  const dialler = {
    got: '',
    drain: (): void => undefined,
    channel: {
      send: (_type: number, payload: Uint8Array) => {
        dialler.got += Buffer.from(payload).toString();
        return false;
      },
      onceFree: (resume: () => void) => {
        dialler.drain = resume;
      },
    } as unknown as SessionChannel,
  };
  return dialler;
}

describe('a stream that is sent to a dialler', () => {
  it('waits while that one is slow, and ends with all of it', async () => {
    const [stream, dialler] = [new PassThrough(), createDialler()];
    const output = pump(stream, dialler.channel, { type: FRAME.stdout });
    for (const text of ['one', 'two']) stream.write(text);
    stream.end();
    await turn();
    assert.deepEqual([dialler.got, output.waits()], ['one', true]);
    dialler.drain();
    await turn();
    assert.equal(dialler.got, 'onetwo');
    dialler.drain();
    await output.ended;
    assert.equal(output.sentBytes(), 6);
  });

  it('is sent to what it has read where it breaks while that one is slow', async () => {
    const [stream, dialler] = [new PassThrough(), createDialler()];
    const seen: string[] = [];
    const output = pump(stream, dialler.channel, {
      type: FRAME.stdout,
      onData: (chunk) => {
        seen.push(chunk.toString());
        return true;
      },
    });
    for (const text of ['one', 'two', 'three']) stream.write(text);
    await turn();
    // As a terminal's master, once nobody has the other side.
    stream.destroy(new Error('read EIO'));
    await output.ended;
    assert.equal(dialler.got, 'onetwothree');
    assert.equal(seen.join(''), dialler.got);
    assert.equal(output.sentBytes(), dialler.got.length);
  });
});
