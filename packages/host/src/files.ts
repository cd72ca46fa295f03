// Files that must be whole or absent.

/**
 * Writes a temporary file beside `path` and renames it over. With `durable` the file and its
 * directory are fsynced first: for records whose loss after a power cut would leak or mislead.
 */
export async function writeFileAtomic(
  _path: string,
  _data: Uint8Array | string,
  _options?: { readonly durable?: boolean; readonly mode?: number },
): Promise<void> {
  throw new Error('not built');
}

/** The content, or undefined where there is no such file. */
export async function readFileIfExists(_path: string): Promise<Buffer | undefined> {
  throw new Error('not built');
}

/** Names in a directory; none where it does not exist. */
export async function listDirectory(_path: string): Promise<string[]> {
  throw new Error('not built');
}

/** Removes a tree, never following a symlink nor crossing into a mount; nothing when absent. Throws EBUSY on a mount point within. */
export async function removeTree(_path: string): Promise<void> {
  throw new Error('not built');
}

/** Bytes (blocks × 512) and inodes below a directory, on its own filesystem. */
export async function diskUsage(
  _path: string,
  _signal: AbortSignal,
): Promise<{ bytes: bigint; inodes: bigint }> {
  throw new Error('not built');
}

/** An advisory lock by flock(2), held until closed or the process ends. Undefined when another holds it. */
export function tryLock(_path: string): { close(): void } | undefined {
  throw new Error('not built');
}
/** Waits for it. */
export async function lock(_path: string, _signal: AbortSignal): Promise<{ close(): void }> {
  throw new Error('not built');
}

export interface FilesystemUse {
  readonly type: number;
  readonly bytesUsed: bigint;
  readonly bytesTotal: bigint;
  readonly inodesUsed: bigint;
  readonly inodesTotal: bigint;
}
/** statfs(2) of the filesystem that holds a path. */
export function filesystemUse(_path: string): FilesystemUse {
  throw new Error('not built');
}
