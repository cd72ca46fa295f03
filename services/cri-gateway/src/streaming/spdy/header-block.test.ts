import assert from 'node:assert/strict';
import { once } from 'node:events';
import { constants, createDeflate, createInflate } from 'node:zlib';
import { describe, it } from 'mocha';
import { SpdyError } from './frames.ts';
import { createHeaderReader, createHeaderWriter, DICTIONARY } from './header-block.ts';

/** Blocks as a client's zlib makes them: one stream, flushed after each. */
async function compressed(...blocks: readonly Buffer[]): Promise<Buffer[]> {
  const deflate = createDeflate({ dictionary: DICTIONARY });
  const made: Buffer[] = [];
  for (const block of blocks) {
    deflate.write(block);
    await new Promise<void>((resolve) => {
      deflate.flush(constants.Z_SYNC_FLUSH, resolve);
    });
    made.push(deflate.read() as Buffer);
  }
  return made;
}

function block(...headers: readonly (readonly [string, string])[]): Buffer {
  const number = (value: number): Buffer => {
    const bytes = Buffer.alloc(4);
    bytes.writeUInt32BE(value);
    return bytes;
  };
  const texts = headers.flat().flatMap((text) => [number(text.length), Buffer.from(text)]);
  return Buffer.concat([number(headers.length), ...texts]);
}

describe('header blocks', () => {
  it('reads one block after another of a single compressed stream', async () => {
    const blocks = await compressed(
      block(['StreamType', 'error'], ['port', '8080']),
      block(['streamtype', 'data'], ['port', '8080']),
      block(),
    );
    const read = createHeaderReader();
    assert.deepEqual(
      blocks.map((one) => [...read(one)]),
      [
        [
          ['streamtype', 'error'],
          ['port', '8080'],
        ],
        [
          ['streamtype', 'data'],
          ['port', '8080'],
        ],
        [],
      ],
    );
  });

  it('follows references over more bytes than a deflate window has', async () => {
    const long = Array.from({ length: 40 }, (_, at) => block([`x${at}`, `${at}`.repeat(900)]));
    const read = createHeaderReader();
    for (const [at, one] of (await compressed(...long, ...long)).entries()) {
      assert.equal(read(one).get(`x${at % 40}`), `${at % 40}`.repeat(900));
    }
  });

  it('writes blocks that an inflater with the dictionary reads', async () => {
    const write = createHeaderWriter();
    const inflate = createInflate({ dictionary: DICTIONARY });
    for (const [name, value] of [
      ['a', '1'],
      ['b', '2'],
    ] as const) {
      inflate.write(write(new Map([[name, value]])));
      await once(inflate, 'readable');
      assert.deepEqual(inflate.read(), block([name, value]));
    }
  });

  for (const [what, make] of [
    ['inflates to more than its maximum', () => compressed(Buffer.alloc(20 * 1024 * 1024))],
    ['says more headers than may be', () => compressed(Buffer.from([0, 1, 0, 0]))],
    ['holds a length beyond its end', () => compressed(Buffer.from([0, 0, 0, 1, 0, 0, 9, 9, 1]))],
    ['ends too early', () => compressed(Buffer.from([0, 0, 0, 1]))],
    ['has no dictionary', async () => [Buffer.from('789c030000000001', 'hex')]],
    ['is not compressed', async () => [block(['a', '1'])]],
    ['is empty', async () => [Buffer.alloc(0)]],
  ] as const) {
    it(`refuses a block that ${what}`, async () => {
      const [one = Buffer.alloc(0)] = await make();
      assert.throws(() => createHeaderReader()(one), SpdyError);
    });
  }
});
