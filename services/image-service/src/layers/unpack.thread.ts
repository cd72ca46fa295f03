// The thread of one layer: hashes, decompresses and unpacks the blob that the main thread sends in
// blocks. It jails itself in the layer's directory first, and ends with the layer.

import { createHash, type Hash } from 'node:crypto';
import { Readable } from 'node:stream';
import { parentPort, workerData } from 'node:worker_threads';
import { createGunzip, createZstdDecompress } from 'node:zlib';
import { LayerWriter } from '@cribus/archive/layer-writer.ts';
import { TarReader } from '@cribus/archive/tar-reader.ts';
import { enterJail } from '@cribus/host/jail.ts';
import type { FromUnpackThread, ToUnpackThread, UnpackThreadData } from './unpack-protocol.ts';

/** Large pieces: each costs a call into the pool and a hash update. */
const CHUNK_BYTES = 256 * 1024;
const INFLATED_AHEAD_BYTES = 1024 * 1024;

const port = parentPort;
if (port === null) throw new Error('this file is a worker thread');
const { directory } = workerData as UnpackThreadData;
const tell = (message: FromUnpackThread) => port.postMessage(message);

/** Blocks in the order of arrival; asking for the next gives a credit back for the last. */
async function* blocks(hash: Hash, count: { bytes: number }): AsyncGenerator<Uint8Array> {
  const waiting: ToUnpackThread[] = [];
  let wake = () => {};
  port?.on('message', (message: ToUnpackThread) => {
    waiting.push(message);
    wake();
  });
  tell({ kind: 'ready' });
  for (;;) {
    const message = waiting.shift();
    if (message === undefined) {
      await new Promise<void>((resolve) => {
        wake = resolve;
      });
    } else if (message.kind === 'end') {
      return;
    } else {
      hash.update(message.data);
      count.bytes += message.data.length;
      yield message.data;
      tell({ kind: 'credit' });
    }
  }
}

/** By its first bytes, not its media type: registries hold layers under the wrong one. */
async function* decompressed(source: AsyncGenerator<Uint8Array>): AsyncGenerator<Uint8Array> {
  const first = await source.next();
  if (first.done) return;
  const rest = (async function* () {
    yield first.value;
    yield* source;
  })();
  const options = { chunkSize: CHUNK_BYTES, highWaterMark: INFLATED_AHEAD_BYTES };
  const magic = Buffer.from(first.value.subarray(0, 4)).toString('hex');
  if (magic.startsWith('1f8b')) yield* inflate(rest, createGunzip(options));
  else if (magic === '28b52ffd') yield* inflate(rest, createZstdDecompress(options));
  else yield* rest;
}

async function* inflate(
  source: AsyncGenerator<Uint8Array>,
  stream: NodeJS.ReadWriteStream,
): AsyncGenerator<Uint8Array> {
  const input = Readable.from(source, { objectMode: true, highWaterMark: 1 });
  input.on('error', (error) => (stream as unknown as Readable).destroy(error));
  input.pipe(stream);
  for await (const chunk of stream) yield chunk as Buffer;
}

async function unpack(): Promise<FromUnpackThread> {
  enterJail(directory);
  const blobHash = createHash('sha256');
  const tarHash = createHash('sha256');
  const blob = { bytes: 0 };
  let tarBytes = 0;
  const writer = new LayerWriter();
  const reader = new TarReader(writer);
  try {
    for await (const chunk of decompressed(blocks(blobHash, blob))) {
      tarHash.update(chunk);
      tarBytes += chunk.length;
      reader.write(chunk);
    }
    reader.finish();
    return {
      kind: 'done',
      digest: `sha256:${blobHash.digest('hex')}`,
      blobBytes: blob.bytes,
      diffId: `sha256:${tarHash.digest('hex')}`,
      tarBytes,
      ...writer.finish(),
    };
  } finally {
    writer.close();
  }
}

void unpack()
  .catch((error: unknown): FromUnpackThread => {
    const cause = error instanceof Error ? error : new Error(String(error));
    const code = 'code' in cause && typeof cause.code === 'string' ? cause.code : '';
    const failure = 'kind' in cause && cause.name === 'Failure';
    return { kind: 'failed', broken: failure, code, message: cause.message };
  })
  .then((message) => {
    tell(message);
    port.close();
  });
