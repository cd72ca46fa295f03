// The compressions that layers and checkpoints come in, told by their first bytes (RFC 1952, RFC 8878).

import { pipeline, Readable } from 'node:stream';
import { createGunzip, createZstdDecompress } from 'node:zlib';

/** Large pieces: each costs a call into the pool. */
const CHUNK_BYTES = 256 * 1024;
const INFLATED_AHEAD_BYTES = 1024 * 1024;

export type Compression = 'gzip' | 'zstd' | 'none';

/** By its first four bytes, not its media type: registries hold layers under the wrong one. */
export function compressionOf(beginning: Uint8Array): Compression {
  const magic = Buffer.from(beginning.subarray(0, 4)).toString('hex');
  if (magic.startsWith('1f8b')) return 'gzip';
  return magic === '28b52ffd' ? 'zstd' : 'none';
}

/** The bytes of an archive, whatever it is packed with. Rejects with zlib's error for a broken one. */
export async function* decompressed(
  source: AsyncIterable<Uint8Array> | Iterable<Uint8Array>,
): AsyncGenerator<Uint8Array> {
  const chunks = chunksOf(source);
  const first = await chunks.next();
  if (first.done) return;
  const whole = (async function* () {
    yield first.value;
    yield* chunks;
  })();
  const options = { chunkSize: CHUNK_BYTES, highWaterMark: INFLATED_AHEAD_BYTES };
  const compression = compressionOf(first.value);
  if (compression === 'gzip') yield* through(whole, createGunzip(options));
  else if (compression === 'zstd') yield* through(whole, createZstdDecompress(options));
  else yield* whole;
}

async function* chunksOf(
  source: AsyncIterable<Uint8Array> | Iterable<Uint8Array>,
): AsyncGenerator<Uint8Array> {
  yield* source;
}

async function* through(
  source: AsyncGenerator<Uint8Array>,
  inflate: NodeJS.ReadWriteStream,
): AsyncGenerator<Uint8Array> {
  const input = Readable.from(source, { objectMode: true, highWaterMark: 1 });
  // Each failure comes out of the loop below; this one's is told twice.
  pipeline(input, inflate, () => {});
  for await (const chunk of inflate) yield chunk as Buffer;
}
