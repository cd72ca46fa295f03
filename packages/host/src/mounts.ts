// mount(2) and umount2(2) by direct call (0.2 ms, where a helper process costs 5), and the table of
// mounts.
import { closeSync, constants, existsSync, openSync, readFileSync, realpathSync } from 'node:fs';
import { isErrno, systemError } from './errno.ts';
import { checked, libc } from './libc.ts';

/** Flags of mount(2), from <sys/mount.h>. */
const MS_RDONLY = 1;
const MS_NOSUID = 2;
const MS_NODEV = 4;
const MS_NOEXEC = 8;
const MS_REMOUNT = 32;
const MS_BIND = 4096;
const MS_REC = 16384;
const PROPAGATION = { private: 1 << 18, slave: 1 << 19, shared: 1 << 20 } as const;
const MNT_DETACH = 2;
const UMOUNT_NOFOLLOW = 8;

/** mount(2) takes one page of options, the ending NUL included, and silently drops the rest. */
const MOUNT_DATA_BYTES_MAX = 4095;
/** Mounts stacked on one place, and rounds over a tree: more means something mounts anew. */
const UNMOUNT_ROUNDS_MAX = 64;
const LAYERS_MAX = 128;

export interface OverlayMount {
  /** Mounted on. */
  readonly target: string;
  /** All layer names are relative to it: mount(2) takes one page of options, so names are short. */
  readonly layersDirectory: string;
  /** Topmost first, each once; at most 128. */
  readonly layerNames: readonly string[];
  /** Absent for a read-only mount. */
  readonly upper?: string;
  readonly work?: string;
  /** The SELinux context of all its files, without a quotation mark. */
  readonly context?: string | undefined;
}

/**
 * Mounts an overlay; backslash, colon and comma in paths are escaped. A single layer without an
 * upper is bound read-only instead, for overlayfs takes no fewer than two layers. The working
 * directory of the whole process is `layersDirectory` during the call: other threads must not use
 * relative paths. Throws with an errno code: ENAMETOOLONG when the options exceed one page, ELOOP for
 * a layer that is named twice.
 */
export function mountOverlay(mount: OverlayMount): void {
  const [first] = mount.layerNames;
  if (first === undefined || mount.layerNames.length > LAYERS_MAX) {
    throw systemError('mount', 'EINVAL', `overlay of ${mount.layerNames.length} layers`);
  }
  if (mount.upper === undefined && mount.layerNames.length === 1) {
    bindMount(`${mount.layersDirectory}/${first}`, mount.target, { readonly: true });
    return;
  }
  const data = overlayOptions(mount);
  if (Buffer.byteLength(data) > MOUNT_DATA_BYTES_MAX) {
    throw systemError('mount', 'ENAMETOOLONG', `overlay on '${mount.target}': options over a page`);
  }
  const flags = mount.upper === undefined ? MS_RDONLY : 0;
  insideDirectory(mount.layersDirectory, () => {
    const result = libc().mount('overlay', mount.target, 'overlay', flags, data);
    checked(result, 'mount', `overlay on '${mount.target}'`);
  });
}

const OVERLAY_PARAMETERS = '/sys/module/overlay/parameters';

/**
 * What an upper directory holds must be all that was changed, whoever reads it: some kernels' defaults
 * leave names and contents in the layers and refer to them (overlayfs.rst, redirect_dir and metacopy).
 * Where the default is off, the page of options has no need of more.
 */
export function overlayOptions(mount: OverlayMount, parameters = OVERLAY_PARAMETERS): string {
  const options = [`lowerdir=${mount.layerNames.map(escapeOverlayPath).join(':')}`];
  if (mount.upper !== undefined) {
    options.push(`upperdir=${escapeOverlayPath(mount.upper)}`);
    options.push(`workdir=${escapeOverlayPath(mount.work ?? '')}`);
    for (const name of ['redirect_dir', 'metacopy']) {
      const file = `${parameters}/${name}`;
      if (existsSync(file) && readFileSync(file, 'latin1').trim() === 'Y') {
        options.push(`${name}=off`);
      }
    }
  }
  // Quoted, for a context holds commas.
  if (mount.context !== undefined) options.push(`context="${mount.context}"`);
  return options.join(',');
}

function escapeOverlayPath(path: string): string {
  return path.replace(/[\\:,]/g, (character) => `\\${character}`);
}

/** By fchdir(2) and not process.chdir, which is not allowed in worker threads. */
function insideDirectory(directory: string, work: () => void): void {
  const before = openSync('.', constants.O_RDONLY | constants.O_DIRECTORY);
  try {
    checked(libc().chdir(directory), 'chdir', `'${directory}'`);
    try {
      work();
    } finally {
      checked(libc().fchdir(before), 'fchdir', 'back');
    }
  } finally {
    closeSync(before);
  }
}

export interface BindOptions {
  readonly recursive?: boolean;
  readonly readonly?: boolean;
  readonly propagation?: 'private' | 'slave' | 'shared';
}

/** Bind-mounts `source` on `target` (both must exist). On a failure nothing stays mounted. */
export function bindMount(source: string, target: string, options: BindOptions = {}): void {
  const recursive = options.recursive === true ? MS_REC : 0;
  const detail = `'${source}' on '${target}'`;
  checked(libc().mount(source, target, null, MS_BIND | recursive, null), 'mount', detail);
  try {
    if (options.propagation !== undefined) {
      setPropagation(target, options.propagation, options.recursive === true);
    }
    if (options.readonly === true) remountReadonly(target);
  } catch (error) {
    libc().umount2(target, MNT_DETACH | UMOUNT_NOFOLLOW);
    throw error;
  }
}

function remountReadonly(target: string): void {
  // A remount sets all flags of the mount anew, so those that it inherited must be told again.
  const inherited = new Set(mountOf(target)?.options.split(','));
  const flags =
    (inherited.has('nosuid') ? MS_NOSUID : 0) |
    (inherited.has('nodev') ? MS_NODEV : 0) |
    (inherited.has('noexec') ? MS_NOEXEC : 0);
  const result = libc().mount('', target, null, MS_REMOUNT | MS_BIND | MS_RDONLY | flags, null);
  checked(result, 'mount', `'${target}' read-only`);
}

/** Mounts a tmpfs (nosuid, nodev, noexec); `data` as in `size=64m,mode=1777`. */
export function mountTmpfs(target: string, data: string): void {
  const flags = MS_NOSUID | MS_NODEV | MS_NOEXEC;
  checked(libc().mount('tmpfs', target, 'tmpfs', flags, data), 'mount', `tmpfs on '${target}'`);
}

/** Changes propagation of an existing mount. */
export function setPropagation(
  target: string,
  propagation: 'private' | 'slave' | 'shared',
  recursive: boolean,
): void {
  const flags = PROPAGATION[propagation] | (recursive ? MS_REC : 0);
  checked(libc().mount('', target, null, flags, null), 'mount', `'${target}' ${propagation}`);
}

/** Unmounts (MNT_DETACH, UMOUNT_NOFOLLOW) all that is stacked on `target`; nothing when absent. */
export function unmount(target: string): void {
  for (let round = 0; round < UNMOUNT_ROUNDS_MAX; round += 1) {
    if (libc().umount2(target, MNT_DETACH | UMOUNT_NOFOLLOW) === 0) continue;
    const error = systemError('umount2', libc().errno(), `'${target}'`);
    // EINVAL: not a mount point.
    if (isErrno(error, 'EINVAL', 'ENOENT', 'ENOTDIR')) return;
    throw error;
  }
}

/** Unmounts every mount at or below a directory, deepest first; returns how many. */
export function unmountTree(directory: string): number {
  if (!existsSync(directory)) return 0;
  const top = realpathSync(directory);
  let count = 0;
  // A mount that another one hides comes within reach only in a later round.
  for (let round = 0; round < UNMOUNT_ROUNDS_MAX; round += 1) {
    const mounts = mountsBelow(top).reverse();
    mounts.sort((a, b) => b.mountPoint.length - a.mountPoint.length);
    let progress = 0;
    for (const { mountPoint } of mounts) {
      if (libc().umount2(mountPoint, MNT_DETACH | UMOUNT_NOFOLLOW) === 0) progress += 1;
    }
    count += progress;
    if (mounts.length === 0) return count;
    if (progress === 0) break;
  }
  throw systemError('umount2', 'EBUSY', `'${directory}': ${mountsBelow(top).length} mounts stay`);
}

export interface MountEntry {
  readonly id: number;
  readonly mountPoint: string;
  readonly filesystem: string;
  readonly source: string;
  /** Options of this mount (`ro`, `nosuid`, …). */
  readonly options: string;
  /** Options of the filesystem (`lowerdir=…`, the controllers of a v1 cgroup mount, …). */
  readonly superOptions: string;
  readonly root: string;
  readonly propagation: 'shared' | 'slave' | 'private' | 'unbindable';
}

/** O_PATH: a descriptor for a place in the tree, without opening the file (open(2)). */
const O_PATH = 0o10000000;

/** /proc/self/mountinfo, with octal escapes decoded (proc(5)). */
export function listMounts(): MountEntry[] {
  return parseMountinfo(readFileSync('/proc/self/mountinfo', 'latin1'));
}

/** Parses the text of a mountinfo file, read as latin1 so that any byte survives. */
export function parseMountinfo(text: string): MountEntry[] {
  const entries: MountEntry[] = [];
  for (const line of text.split('\n')) {
    const separator = line.indexOf(' - ');
    if (separator < 0) continue;
    const mount = line.slice(0, separator).split(' ');
    const filesystem = line.slice(separator + 3).split(' ');
    entries.push({
      id: Number(mount[0]),
      root: unescapeOctal(mount[3] ?? ''),
      mountPoint: unescapeOctal(mount[4] ?? ''),
      options: mount[5] ?? '',
      propagation: propagationOf(mount.slice(6)),
      filesystem: filesystem[0] ?? '',
      source: unescapeOctal(filesystem[1] ?? ''),
      superOptions: unescapeOctal(filesystem.slice(2).join(' ')),
    });
  }
  return entries;
}

function propagationOf(fields: readonly string[]): MountEntry['propagation'] {
  if (fields.some((field) => field.startsWith('shared:'))) return 'shared';
  if (fields.some((field) => field.startsWith('master:'))) return 'slave';
  return fields.includes('unbindable') ? 'unbindable' : 'private';
}

function unescapeOctal(field: string): string {
  const bytes = field.replace(/\\([0-7]{3})/g, (_, digits: string) =>
    String.fromCharCode(Number.parseInt(digits, 8)),
  );
  return Buffer.from(bytes, 'latin1').toString('utf8');
}

/** The mount that holds a path (symlinks followed); undefined when the path does not exist. */
export function mountOf(path: string): MountEntry | undefined {
  let fd: number;
  try {
    fd = openSync(path, O_PATH);
  } catch (error) {
    if (isErrno(error, 'ENOENT', 'ENOTDIR')) return undefined;
    throw error;
  }
  try {
    const id = mountIdOf(fd);
    return listMounts().find((mount) => mount.id === id);
  } finally {
    closeSync(fd);
  }
}

/** The id of the mount that an open descriptor is on: exact, where comparing paths is a guess. */
export function mountIdOf(fd: number): number {
  const text = readFileSync(`/proc/self/fdinfo/${fd}`, 'latin1');
  return Number(/^mnt_id:\s*(\d+)/m.exec(text)?.[1] ?? Number.NaN);
}

/** Mounts on a directory or below it; the path must hold no symlinks, as realpath(3) gives it. */
export function mountsBelow(directory: string): MountEntry[] {
  const prefix = directory.endsWith('/') ? directory : `${directory}/`;
  // A node has several mounts for each pod, and only those are parsed that name the directory, as
  // far as it goes without a character that proc(5) escapes.
  const [plain = ''] = Buffer.from(directory)
    .toString('latin1')
    .split(/[ \t\n\\#]/, 1);
  const lines = readFileSync('/proc/self/mountinfo', 'latin1').split('\n');
  return parseMountinfo(lines.filter((line) => line.includes(plain)).join('\n')).filter(
    (mount) => mount.mountPoint === directory || mount.mountPoint.startsWith(prefix),
  );
}

/** Flags to open a directory to work below it, refusing a symlink in its place. */
export const OPEN_DIRECTORY_ONLY =
  constants.O_RDONLY | constants.O_DIRECTORY | constants.O_NOFOLLOW;
