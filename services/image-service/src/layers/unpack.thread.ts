// The thread of one layer: hashes, decompresses and unpacks the blob that the main thread sends in
// blocks. It jails itself in the layer's directory first, and ends with the layer.

import { createHash, type Hash } from 'node:crypto';
import { parentPort, workerData } from 'node:worker_threads';
import { decompressed } from '@cribus/archive/decompressed.ts';
import { LayerWriter } from '@cribus/archive/layer-writer.ts';
import { TarReader } from '@cribus/archive/tar-reader.ts';
import { threadFailure } from '@cribus/archive/thread-failure.ts';
import { enterJail } from '@cribus/host/jail.ts';
import type { FromUnpackThread, ToUnpackThread, UnpackThreadData } from './unpack-protocol.ts';

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
  .catch(threadFailure)
  .then((message) => {
    tell(message);
    port.close();
  });
