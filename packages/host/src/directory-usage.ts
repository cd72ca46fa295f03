// How much a directory tree holds, walked in slices of a few milliseconds so that a large one holds
// nothing else up.
import { lstatSync, readdirSync, realpathSync, statfsSync, statSync } from 'node:fs';
import { blockDeviceName } from './cgroup-usage.ts';
import type { Clock } from './clock.ts';
import { isErrno } from './errno.ts';
import { listMounts } from './mounts.ts';

export interface DirectoryUsage {
  /** Allocated blocks, as du(1) counts them. */
  readonly usedBytes: bigint;
  /** Each hard-linked file once; the directory itself included. */
  readonly inodesUsed: bigint;
}

export interface WalkOptions {
  readonly clock: Clock;
  readonly signal: AbortSignal;
  /** After so long the event loop gets its turn. */
  readonly sliceMs: number;
  /** And so long the walk rests. */
  readonly pauseMs: number;
}

/** stat(2): st_blocks is in units of 512 bytes. */
const BLOCK_BYTES = 512n;

/**
 * Walks a tree without following links or entering another filesystem; what goes away meanwhile is not
 * counted, and an absent directory holds nothing. Rejects with the signal's reason.
 */
export async function directoryUsage(path: string, options: WalkOptions): Promise<DirectoryUsage> {
  const { clock, signal, sliceMs, pauseMs } = options;
  let usedBytes = 0n;
  let inodesUsed = 0n;
  const linked = new Set<bigint>();
  const top = lstatSync(path, { bigint: true, throwIfNoEntry: false });
  if (top === undefined) return { usedBytes, inodesUsed };
  usedBytes += top.blocks * BLOCK_BYTES;
  inodesUsed += 1n;
  const directories = top.isDirectory() ? [path] : [];
  let sliceEndsMs = clock.monotonicMs() + sliceMs;
  for (let at = directories.pop(); at !== undefined; at = directories.pop()) {
    for (const name of namesIn(at)) {
      if (clock.monotonicMs() >= sliceEndsMs) {
        await clock.sleep(pauseMs, signal);
        sliceEndsMs = clock.monotonicMs() + sliceMs;
      }
      // Names are bytes; latin1 keeps each of them.
      const entry = `${at}/${name}`;
      const stat = lstatSync(Buffer.from(entry, 'latin1'), { bigint: true, throwIfNoEntry: false });
      if (stat === undefined || stat.dev !== top.dev) continue;
      if (stat.nlink > 1n && !stat.isDirectory()) {
        if (linked.has(stat.ino)) continue;
        linked.add(stat.ino);
      }
      usedBytes += stat.blocks * BLOCK_BYTES;
      inodesUsed += 1n;
      if (stat.isDirectory()) directories.push(entry);
    }
  }
  signal.throwIfAborted();
  return { usedBytes, inodesUsed };
}

function namesIn(directory: string): string[] {
  try {
    return readdirSync(Buffer.from(directory, 'latin1'), { encoding: 'latin1' });
  } catch (error) {
    if (isErrno(error, 'ENOENT', 'ENOTDIR')) return [];
    throw error;
  }
}

/** The filesystem that a path is on. */
export interface FilesystemCapacity {
  /** As /dev/vda; what is mounted where it is no block device. */
  readonly device: string;
  readonly capacityBytes: bigint;
  readonly inodesTotal: bigint;
  readonly inodesFree: bigint;
}

/** Reads the capacity of the filesystem of a path. Throws ENOENT. */
export function filesystemCapacity(path: string): FilesystemCapacity {
  const { blocks, bsize, files, ffree } = statfsSync(path, { bigint: true });
  return {
    device: deviceOf(path),
    capacityBytes: blocks * bsize,
    inodesTotal: files,
    inodesFree: ffree,
  };
}

function deviceOf(path: string): string {
  const { dev } = statSync(path);
  // As the C library takes a device number apart (makedev(3)).
  const name = blockDeviceName((dev >>> 8) & 0xfff, (dev & 0xff) | ((dev >>> 12) & 0xfff00));
  if (name !== '') return name;
  const real = realpathSync(path);
  const mount = listMounts()
    .filter(
      ({ mountPoint }) =>
        real === mountPoint || real.startsWith(`${mountPoint}/`) || mountPoint === '/',
    )
    .toSorted((a, b) => a.mountPoint.length - b.mountPoint.length)
    .at(-1);
  return mount?.source ?? '';
}
