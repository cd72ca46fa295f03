// Device nodes: finding the host's, and making new ones, for which Node has no call.
import { chmodSync, lstatSync, readdirSync } from 'node:fs';
import { isErrno } from './errno.ts';
import { checked, libc } from './libc.ts';

export type DeviceType = 'char' | 'block' | 'fifo';

export interface DeviceNode {
  readonly path: string;
  readonly type: DeviceType;
  /** Zero for a fifo. */
  readonly major: number;
  readonly minor: number;
  /** Permission bits. */
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
}

/**
 * What a container gets its own of, and what belongs to the manager of the machine: the list that
 * every OCI runtime skips when it looks for the host's devices.
 */
const SKIPPED_DIRECTORIES = new Set(['pts', 'shm', 'fd', 'mqueue', '.lxc', '.lxd-mounts', '.udev']);
const DEVICES_MAX = 10_000;
/** File types of stat(2). */
const FILE_TYPES = { char: 0o020000, block: 0o060000, fifo: 0o010000 } as const;
const FILE_TYPE_MASK = 0o170000n;

/**
 * The character and block devices at or below a path (a device itself, or a directory), symlinks
 * not followed; fifos only where `path` itself is one. The console is left out of a directory: a
 * container has its own. Throws ENOENT when the path is absent.
 */
export function listDevices(path = '/dev'): DeviceNode[] {
  const own = deviceAt(path);
  if (own !== undefined) return [own];
  const found: DeviceNode[] = [];
  const directories = [path];
  // The list grows while it is walked.
  for (const directory of directories) {
    for (const entry of readdirSync(directory, { withFileTypes: true })) {
      const at = `${directory}/${entry.name}`;
      if (entry.isDirectory()) {
        if (!SKIPPED_DIRECTORIES.has(entry.name)) directories.push(at);
      } else if (entry.isCharacterDevice() || entry.isBlockDevice()) {
        const device = at === '/dev/console' ? undefined : deviceIfThere(at);
        if (device !== undefined) found.push(device);
        if (found.length >= DEVICES_MAX) return found;
      }
    }
  }
  return found;
}

/** One device node, a symlink not followed; undefined when it is something else. Throws ENOENT. */
export function deviceAt(path: string): DeviceNode | undefined {
  const stat = lstatSync(path, { bigint: true });
  const fileType = Number(stat.mode & FILE_TYPE_MASK);
  const type = (['char', 'block', 'fifo'] as const).find((name) => FILE_TYPES[name] === fileType);
  if (type === undefined) return undefined;
  return {
    path,
    type,
    major:
      type === 'fifo' ? 0 : Number(((stat.rdev >> 8n) & 0xfffn) | ((stat.rdev >> 32n) & ~0xfffn)),
    minor: type === 'fifo' ? 0 : Number((stat.rdev & 0xffn) | ((stat.rdev >> 12n) & 0xfff00n)),
    mode: Number(stat.mode & 0o7777n),
    uid: Number(stat.uid),
    gid: Number(stat.gid),
  };
}

function deviceIfThere(path: string): DeviceNode | undefined {
  try {
    return deviceAt(path);
  } catch (error) {
    // Unplugged since the directory was read.
    if (isErrno(error, 'ENOENT')) return undefined;
    throw error;
  }
}

/** Makes a device node or a fifo by mknod(2), with exactly these permission bits. Throws EEXIST. */
export function makeDevice(
  path: string,
  type: DeviceType,
  mode: number,
  major: number,
  minor: number,
): void {
  checked(libc().mknod(path, FILE_TYPES[type] | mode, deviceNumber(major, minor)), 'mknod', path);
  // The umask took bits away.
  chmodSync(path, mode);
}

/** As makedev(3) packs them; below 2^53 for every number that Linux gives out. */
function deviceNumber(major: number, minor: number): number {
  const high = (BigInt(minor) & ~0xffn) << 12n;
  const low = (BigInt(minor) & 0xffn) | ((BigInt(major) & 0xfffn) << 8n);
  return Number(low | high | ((BigInt(major) & ~0xfffn) << 32n));
}
