// Namespaces kept by bind mounts of their nsfs files. Made on the calling thread by unshare(2) and
// left again within one synchronous call, so that nothing else ever runs inside. A thread that
// can't come back ends the process: it would work in the wrong namespace from then on.
import {
  closeSync,
  constants,
  mkdirSync,
  openSync,
  readFileSync,
  rmSync,
  statfsSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { dirname } from 'node:path';
import { isErrno, systemError } from './errno.ts';
import { checked, libc } from './libc.ts';
import { bindMount, unmount } from './mounts.ts';

export interface NamespacePins {
  readonly net?: string;
  readonly ipc?: string;
  readonly uts?: string;
}

export interface CreateNamespacesOptions {
  /** Paths (files, created here) to pin each wanted namespace at. */
  readonly pins: NamespacePins;
  /** Set in the new UTS namespace; leave it out where there is none. */
  readonly hostname?: string;
  /** Written inside the new namespaces (net.*, kernel.shm*, …): name with dots to value. */
  readonly sysctls?: Readonly<Record<string, string>>;
}

/** CLONE_NEW* of <sched.h>. */
const CLONE_FLAGS = { net: 0x40000000, ipc: 0x08000000, uts: 0x04000000 } as const;
export type NamespaceKind = keyof typeof CLONE_FLAGS;
export const NAMESPACE_KINDS = ['net', 'ipc', 'uts'] as const satisfies readonly NamespaceKind[];
/** NSFS_MAGIC of <linux/magic.h>. */
const NSFS_MAGIC = 0x6e736673;
/** From <sys/socket.h>, <bits/ioctls.h> and <net/if.h>. */
const AF_INET = 2;
const SOCK_DGRAM_CLOEXEC = 0o2000002;
const SIOCGIFFLAGS = 0x8913;
const SIOCSIFFLAGS = 0x8914;
const IFF_UP = 1;
/** asm-generic/socket.h; Linux 5.14. */
const SOL_SOCKET = 1;
const SO_NETNS_COOKIE = 71;
/** struct ifreq: 16 bytes of name, then a union that begins with the flags. */
const IFREQ_BYTES = 40;
const IFREQ_FLAGS_OFFSET = 16;

/**
 * Creates and pins the namespaces, brings the loopback of a new network namespace up, sets the
 * hostname and the sysctls. On a failure nothing stays. Throws with an errno code and the step;
 * EEXIST when a namespace is pinned at one of the paths already. The directories of the pins are
 * created where absent (0700).
 */
export function createNamespaces(options: CreateNamespacesOptions): void {
  const kinds = NAMESPACE_KINDS.filter((kind) => options.pins[kind] !== undefined);
  const pinned: string[] = [];
  insideAfterwardsBack(kinds, () => {
    const flags = kinds.reduce((sum, kind) => sum | CLONE_FLAGS[kind], 0);
    checked(libc().unshare(flags), 'unshare', kinds.join(', '));
    try {
      if (kinds.includes('net')) bringLoopbackUp();
      if (options.hostname !== undefined) setHostname(options.hostname, kinds);
      for (const [name, value] of Object.entries(options.sysctls ?? {})) {
        writeSysctl(name, value);
      }
      for (const kind of kinds) {
        const pin = options.pins[kind] ?? '';
        if (isNamespacePin(pin)) throw systemError('mount', 'EEXIST', `'${pin}' is a pin already`);
        pinned.push(pin);
        pinNamespace(`/proc/thread-self/ns/${kind}`, pin);
      }
    } catch (error) {
      for (const pin of pinned) removeNamespacePin(pin);
      throw error;
    }
  });
}

/** Runs `work`, after which the calling thread is put back into its namespaces of these kinds. */
function insideAfterwardsBack<T>(kinds: readonly NamespaceKind[], work: () => T): T {
  const own = kinds.map((kind) => ({
    fd: openSync(`/proc/thread-self/ns/${kind}`, constants.O_RDONLY),
    flag: CLONE_FLAGS[kind],
  }));
  try {
    return work();
  } finally {
    for (const { fd, flag } of own) {
      if (libc().setns(fd, flag) < 0) process.abort();
      closeSync(fd);
    }
  }
}

/**
 * Brings loopback up and sets the hostname in pinned namespaces that somebody else made, as in those
 * of a user namespace. Throws with an errno code and the step.
 */
export function furnishNamespaces(pins: NamespacePins, hostname: string | undefined): void {
  const kinds = NAMESPACE_KINDS.filter((kind) => kind !== 'ipc' && pins[kind] !== undefined);
  insideAfterwardsBack(kinds, () => {
    for (const kind of kinds) enterPinned(kind, pins[kind] ?? '');
    if (kinds.includes('net')) bringLoopbackUp();
    if (hostname !== undefined) setHostname(hostname, kinds);
  });
}

function enterPinned(kind: NamespaceKind, pin: string): void {
  const fd = openSync(pin, constants.O_RDONLY);
  try {
    checked(libc().setns(fd, CLONE_FLAGS[kind]), 'setns', `'${pin}'`);
  } finally {
    closeSync(fd);
  }
}

function setHostname(hostname: string, kinds: readonly NamespaceKind[]): void {
  if (!kinds.includes('uts')) throw systemError('sethostname', 'EINVAL', 'the host itself');
  const name = Buffer.from(hostname);
  checked(libc().sethostname(name, name.length), 'sethostname', `'${hostname}'`);
}

function bringLoopbackUp(): void {
  const socket = checked(libc().socket(AF_INET, SOCK_DGRAM_CLOEXEC, 0), 'socket', 'for loopback');
  try {
    const request = Buffer.alloc(IFREQ_BYTES);
    request.write('lo');
    checked(libc().ioctl(socket, SIOCGIFFLAGS, 'void *', request), 'ioctl', 'SIOCGIFFLAGS lo');
    const flags = request.readUInt16LE(IFREQ_FLAGS_OFFSET);
    request.writeUInt16LE(flags | IFF_UP, IFREQ_FLAGS_OFFSET);
    checked(libc().ioctl(socket, SIOCSIFFLAGS, 'void *', request), 'ioctl', 'SIOCSIFFLAGS lo');
  } finally {
    closeSync(socket);
  }
}

/** The kernel finds the values below /proc/sys by the namespaces of the thread that opens them. */
function writeSysctl(name: string, value: string): void {
  try {
    const fd = openSync(`/proc/sys/${sysctlPath(name)}`, constants.O_WRONLY);
    try {
      writeFileSync(fd, value);
    } finally {
      closeSync(fd);
    }
  } catch (error) {
    if (!(error instanceof Error) || !('code' in error)) throw error;
    throw systemError('write', String(error.code), `sysctl ${name}=${value}`);
  }
}

/**
 * As sysctl(8) reads names: whichever of dot and slash comes first separates, and the other one is
 * part of a name (`net/ipv4/conf/eth0.100/forwarding`).
 */
export function sysctlPath(name: string): string {
  const separator = /[./]/.exec(name)?.[0] ?? '.';
  const parts = name.split(separator);
  const path = parts.map((part) => (separator === '.' ? part.replaceAll('/', '.') : part));
  if (path.some((part) => part === '' || part === '.' || part === '..')) {
    throw systemError('open', 'EINVAL', `sysctl ${name}`);
  }
  return path.join('/');
}

/** True if the path is a mount of nsfs (statfs(2), NSFS_MAGIC). */
export function isNamespacePin(path: string): boolean {
  try {
    return statfsSync(path).type === NSFS_MAGIC;
  } catch (error) {
    if (isErrno(error, 'ENOENT', 'ENOTDIR')) return false;
    throw error;
  }
}

/** Unmounts and removes a pin; nothing when absent. */
export function removeNamespacePin(path: string): void {
  unmount(path);
  rmSync(path, { force: true });
}

/** Pins an existing namespace, as /proc/<pid>/ns/pid. */
export function pinNamespace(source: string, target: string): void {
  mkdirSync(dirname(target), { recursive: true, mode: 0o700 });
  closeSync(openSync(target, constants.O_RDONLY | constants.O_CREAT, 0o600));
  try {
    bindMount(source, target);
  } catch (error) {
    rmSync(target, { force: true });
    throw error;
  }
}

/**
 * The number of this thread's network namespace, which no other gets before the next boot. On kernels
 * before 5.14 it is the inode's, which may be used again once the namespace is gone.
 */
export function networkNamespaceNumber(): bigint {
  const value = Buffer.alloc(8);
  const socket = checked(
    libc().socket(AF_INET, SOCK_DGRAM_CLOEXEC, 0),
    'socket',
    'to ask it for its namespace',
  );
  try {
    const length = new Uint32Array([value.length]);
    const result = libc().getsockopt(socket, SOL_SOCKET, SO_NETNS_COOKIE, value, length);
    if (result === 0) return value.readBigUInt64LE();
    return statSync('/proc/thread-self/ns/net', { bigint: true }).ino;
  } finally {
    closeSync(socket);
  }
}

/**
 * Runs a synchronous function on this thread inside a network namespace, and comes back. Whatever
 * it starts (a socket, a child) belongs to that namespace; it must return no promise, for what runs
 * later runs outside.
 */
export function insideNetworkNamespace<T>(path: string, work: () => T): T {
  const target = openSync(path, constants.O_RDONLY);
  try {
    return insideAfterwardsBack(['net'], () => {
      checked(libc().setns(target, CLONE_FLAGS.net), 'setns', `'${path}'`);
      return work();
    });
  } finally {
    closeSync(target);
  }
}

/** Interfaces of a network namespace with their counters, from /proc/net/dev read inside it. */
export interface InterfaceCounters {
  readonly name: string;
  readonly rxBytes: bigint;
  readonly rxErrors: bigint;
  readonly txBytes: bigint;
  readonly txErrors: bigint;
  readonly rxPackets: bigint;
  readonly txPackets: bigint;
  readonly rxDropped: bigint;
  readonly txDropped: bigint;
}

/** The counters of all interfaces, `lo` included. Throws ENOENT when there is no such pin. */
export function interfaceCounters(netnsPath: string): InterfaceCounters[] {
  const text = insideNetworkNamespace(netnsPath, () =>
    readFileSync('/proc/thread-self/net/dev', 'latin1'),
  );
  return parseInterfaceCounters(text);
}

/** Parses /proc/net/dev (proc(5)): two lines of heading, then 8 receive and 8 transmit columns. */
export function parseInterfaceCounters(text: string): InterfaceCounters[] {
  const lines = text.split('\n').slice(2);
  return lines
    .filter((line) => line.includes(':'))
    .map((line) => {
      const colon = line.lastIndexOf(':');
      const columns = line
        .slice(colon + 1)
        .trim()
        .split(/\s+/)
        .map(BigInt);
      const column = (index: number) => columns[index] ?? 0n;
      return {
        name: line.slice(0, colon).trim(),
        rxBytes: column(0),
        rxPackets: column(1),
        rxErrors: column(2),
        rxDropped: column(3),
        txBytes: column(8),
        txPackets: column(9),
        txErrors: column(10),
        txDropped: column(11),
      };
    });
}
