// Manifests and configurations by digest. One is kept while an image names it, and before that for as long
// as the pull that wrote it holds it.

import { stat, unlink } from 'node:fs/promises';
import { join } from 'node:path';
import { listDirectory, readFileIfExists, writeFileAtomic } from '@cribus/host/files.ts';
import type { Collected } from './collected.ts';
import { createHolds } from './holds.ts';
import type { ImagePaths } from './image-paths.ts';

export interface BlobStore {
  read(digest: string): Promise<Buffer | undefined>;
  /** Kept until it is released, and then while it is needed. */
  write(digest: string, body: Buffer): Promise<void>;
  release(digests: readonly string[]): void;
  /** Deletes what is neither needed nor held. */
  collect(needed: ReadonlySet<string>): Promise<void>;
}

/** Makes the store; its directory is there before the first use. */
export function createBlobStore(paths: ImagePaths, collected: Collected): BlobStore {
  /** By pulls whose image is about to be added. */
  const holds = createHolds();
  return {
    read: (digest) => readFileIfExists(paths.blobOf(digest)),
    async write(digest, body) {
      holds.hold(digest);
      await writeFileAtomic(paths.blobOf(digest), body);
    },
    release: holds.release,
    async collect(needed) {
      for (const hex of await listDirectory(paths.content)) {
        const digest = `sha256:${hex}`;
        // A temporary name is left only by a crash, and its owner is this process.
        if (needed.has(digest) || holds.isHeld(digest)) continue;
        const file = join(paths.content, hex);
        const { size } = await stat(file).catch(() => ({ size: 0 }));
        await unlink(file).then(
          () => collected.add('blob', 1, BigInt(size)),
          () => {},
        );
      }
    },
  };
}
