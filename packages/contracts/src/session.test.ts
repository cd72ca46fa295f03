// Frames, however the bytes are cut on their way.

import assert from 'node:assert/strict';
import { PassThrough } from 'node:stream';
import { describe, it } from 'mocha';
import {
  createFrameReader,
  encodeFrame,
  encodeJsonFrame,
  FRAME,
  FRAME_PAYLOAD_BYTES_MAX,
  writeFrames,
} from './session.ts';

/** What a reader makes of bytes in pieces of this size; neighbouring pieces of a stream joined. */
function readInPieces(bytes: Buffer, size: number): [type: number, text: string][] {
  const seen: [number, string][] = [];
  const read = createFrameReader((type, payload) => {
    const last = seen.at(-1);
    if (last !== undefined && last[0] === type && type === FRAME.stdout) {
      last[1] += payload.toString();
    } else seen.push([type, payload.toString()]);
  });
  for (let at = 0; at < bytes.length; at += size) read(bytes.subarray(at, at + size));
  return seen;
}

describe('frames of a session', () => {
  it('come out as they went in wherever their bytes are cut', () => {
    const bytes = Buffer.concat([
      encodeJsonFrame(FRAME.resize, { width: 80, height: 24 }),
      encodeFrame(FRAME.stdout, Buffer.from('hello')),
      encodeFrame(FRAME.stdout, Buffer.alloc(0)),
      encodeFrame(FRAME.stdinEnd, Buffer.alloc(0)),
      encodeFrame(FRAME.stdout, Buffer.from('more')),
      encodeJsonFrame(FRAME.exit, { exitCode: 3 }),
      encodeFrame(FRAME.stdoutEnd, Buffer.alloc(0)),
    ]);
    for (const size of [1, 2, 5, 7, 11, bytes.length]) {
      assert.deepEqual(readInPieces(bytes, size), [
        [FRAME.resize, '{"width":80,"height":24}'],
        [FRAME.stdout, 'hello'],
        [FRAME.stdinEnd, ''],
        [FRAME.stdout, 'more'],
        [FRAME.exit, '{"exitCode":3}'],
        [FRAME.stdoutEnd, ''],
      ]);
    }
  });

  it('of a stream are written in pieces of the maximum, and a larger one is refused', () => {
    const stream = new PassThrough({ highWaterMark: 8 * FRAME_PAYLOAD_BYTES_MAX });
    const payload = Buffer.alloc(2 * FRAME_PAYLOAD_BYTES_MAX + 1, 'x');
    assert.equal(writeFrames(stream, FRAME.stderr, payload), true);
    let readBytes = 0;
    const read = createFrameReader((type, piece) => {
      assert.equal(type, FRAME.stderr);
      readBytes += piece.length;
    });
    read(stream.read() as Buffer);
    assert.equal(readBytes, payload.length);
    const tooLarge = Buffer.alloc(5);
    tooLarge.writeUInt32BE(FRAME_PAYLOAD_BYTES_MAX + 1, 1);
    assert.throws(() => read(tooLarge), { kind: 'data_loss' });
    stream.destroy();
    assert.equal(writeFrames(stream, FRAME.stdout, payload), true, 'nobody waits for a closed one');
  });
});
