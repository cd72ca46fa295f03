// The unpacked layers: one directory each, there only when verified and whole. A layer is kept while
// an image, a lease or a running pull names it.

import { randomUUID } from 'node:crypto';
import { access, mkdir, open, rename } from 'node:fs/promises';
import { join } from 'node:path';
import type { Logger } from '@cribus/chassis/log.ts';
import { isErrno } from '@cribus/host/errno.ts';
import {
  diskUsage,
  listDirectory,
  readFileIfExists,
  removeTree,
  writeFileAtomic,
} from '@cribus/host/files.ts';
import { syncFilesystem } from '@cribus/host/jail.ts';
import { createHolds } from '../holds.ts';
import type { ImagePaths } from '../image-paths.ts';

export interface LayerStore {
  /** Learns of a layer that a record names; false when its directory is gone. */
  adopt(layer: { readonly diffId: string; readonly name: string }): Promise<boolean>;
  /**
   * The name of the layer, unpacked by `unpack` into an empty directory if it isn't there yet;
   * calls for one layer share the work. It is held until `release`. `unpack` answers the
   * directories that the layer implies.
   */
  ensure(diffId: string, unpack: Unpack): Promise<string>;
  /** Directories that a layer's entries lie in without having one of their own; parents first. */
  impliedDirectories(name: string): Promise<readonly string[]>;
  release(names: readonly string[]): void;
  /**
   * Returns when a power cut would leave these layers whole: one syncfs for those that were unpacked
   * since the last, where a sync of each file would cost more than the pull.
   */
  persist(names: readonly string[]): Promise<void>;
  /** Moves the layers that nobody needs to the trash. Call it under the lock that grants leases. */
  collect(needed: ReadonlySet<string>): Promise<void>;
  /** Deletes what is in the trash, and in ingest what no pull works on. */
  emptyTrash(): Promise<Freed>;
  /** Of all layers, as last measured. */
  usage(): { readonly bytes: bigint; readonly inodes: bigint };
  /** Measures the layers that were not measured yet. */
  measure(signal: AbortSignal): Promise<void>;
}

/** What went, and what it took on the disk. */
export interface Freed {
  readonly layers: number;
  readonly ingests: number;
  readonly bytes: bigint;
}

/** Fills an empty directory. */
export type Unpack = (directory: string) => Promise<readonly string[]>;

/** Short, for many of them must fit into one page of mount options; lengthened if taken. */
const NAME_CHARACTERS_MIN = 12;

/** Makes the store; its directories are created by the first use. */
export function createLayerStore(options: {
  readonly paths: ImagePaths;
  readonly log: Logger;
  /** Ends the measuring of what is about to go. */
  readonly stopping: AbortSignal;
}): LayerStore {
  const { paths, log } = options;
  const byDiffId = new Map<string, string>();
  const pending = new Map<string, Promise<string>>();
  const holds = createHolds();
  const ingesting = new Set<string>();
  const unsynced = new Set<string>();
  const sizes = new Map<string, { readonly bytes: bigint; readonly inodes: bigint }>();
  /** Of layers in the trash that were measured before. */
  const trashSizes = new Map<string, bigint>();

  function hold(name: string): string {
    holds.hold(name);
    return name;
  }

  async function unpackNew(diffId: string, unpack: Unpack): Promise<string> {
    const id = randomUUID();
    const directory = join(paths.ingest, id);
    ingesting.add(id);
    try {
      // The root of a layer that doesn't say otherwise, as every unpacker makes it.
      await mkdir(directory, { recursive: true, mode: 0o755 });
      const implied = await unpack(directory);
      await mkdir(paths.layers, { recursive: true, mode: 0o700 });
      const name = await freeName(diffId);
      if (implied.length > 0) {
        await mkdir(paths.implied, { recursive: true, mode: 0o700 });
        await writeFileAtomic(paths.impliedOf(name), Buffer.from(JSON.stringify(implied)));
      }
      await rename(directory, join(paths.layers, name));
      unsynced.add(name);
      byDiffId.set(diffId, name);
      return name;
    } catch (error) {
      await removeTree(directory).catch((cause: unknown) =>
        log.warn({ err: cause, directory }, 'A failed layer stays until the next sweep.'),
      );
      throw error;
    } finally {
      ingesting.delete(id);
    }
  }

  async function freeName(diffId: string): Promise<string> {
    const hex = diffId.slice('sha256:'.length);
    for (let length = NAME_CHARACTERS_MIN; length < hex.length; length += 1) {
      const name = hex.slice(0, length);
      if (!(await exists(join(paths.layers, name)))) return name;
    }
    return hex;
  }

  return {
    async adopt({ diffId, name }) {
      if (!(await exists(join(paths.layers, name)))) return false;
      byDiffId.set(diffId, name);
      return true;
    },

    async ensure(diffId, unpack) {
      for (;;) {
        const known = byDiffId.get(diffId);
        if (known !== undefined) return hold(known);
        const joined = pending.get(diffId);
        if (joined === undefined) break;
        // The other pull's failure (its credentials, its mirror) need not be ours.
        await joined.catch(() => {});
      }
      const work = unpackNew(diffId, unpack);
      pending.set(diffId, work);
      try {
        return hold(await work);
      } finally {
        pending.delete(diffId);
      }
    },

    release: holds.release,

    async persist(names) {
      const waiting = names.filter((name) => unsynced.has(name));
      if (waiting.length === 0) return;
      const directory = await open(paths.layers);
      try {
        await syncFilesystem(directory.fd);
      } finally {
        await directory.close();
      }
      for (const name of waiting) unsynced.delete(name);
    },

    async impliedDirectories(name) {
      const json = await readFileIfExists(paths.impliedOf(name));
      return json === undefined ? [] : (JSON.parse(json.toString('utf8')) as string[]);
    },

    async collect(needed) {
      for (const name of await listDirectory(paths.layers)) {
        if (needed.has(name) || holds.isHeld(name)) continue;
        for (const [diffId, known] of byDiffId) {
          if (known === name) byDiffId.delete(diffId);
        }
        const trashName = `${name}.${randomUUID()}`;
        const size = sizes.get(name);
        if (size !== undefined) trashSizes.set(trashName, size.bytes);
        sizes.delete(name);
        unsynced.delete(name);
        await mkdir(paths.trash, { recursive: true, mode: 0o700 });
        await rename(join(paths.layers, name), join(paths.trash, trashName));
        await removeTree(paths.impliedOf(name));
      }
    },

    async emptyTrash() {
      let bytes = 0n;
      const drop = async (path: string, knownBytes: bigint | undefined): Promise<void> => {
        const { bytes: found } =
          knownBytes === undefined
            ? await diskUsage(path, options.stopping)
            : { bytes: knownBytes };
        await removeTree(path);
        bytes += found;
      };
      const layers = await listDirectory(paths.trash);
      for (const name of layers) {
        await drop(join(paths.trash, name), trashSizes.get(name));
        trashSizes.delete(name);
      }
      const ingests = (await listDirectory(paths.ingest)).filter((name) => !ingesting.has(name));
      for (const name of ingests) await drop(join(paths.ingest, name), undefined);
      return { layers: layers.length, ingests: ingests.length, bytes };
    },

    usage() {
      let bytes = 0n;
      let inodes = 0n;
      for (const size of sizes.values()) {
        bytes += size.bytes;
        inodes += size.inodes;
      }
      return { bytes, inodes };
    },

    async measure(signal) {
      for (const name of new Set(byDiffId.values())) {
        if (sizes.has(name)) continue;
        const size = await diskUsage(join(paths.layers, name), signal);
        if ([...byDiffId.values()].includes(name)) sizes.set(name, size);
      }
    },
  };
}

async function exists(path: string): Promise<boolean> {
  try {
    await access(path);
    return true;
  } catch (error) {
    if (isErrno(error, 'ENOENT')) return false;
    throw error;
  }
}
