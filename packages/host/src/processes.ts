// Processes of the host by identity (boot id, pid, start time), never by pid alone.
import { closeSync, readdirSync, readFileSync } from 'node:fs';
import { constants } from 'node:os';
import { isErrno, systemError } from './errno.ts';
import { checked, libc } from './libc.ts';

/** As records.proto has it. */
export interface ProcessIdentity {
  pid: number;
  startTimeTicks: bigint;
  bootId: string;
}

/** Calls without a wrapper in glibc 2.34; one number on all architectures (syscall_64.tbl). */
const SYS_PIDFD_SEND_SIGNAL = 424;
const SYS_PIDFD_OPEN = 434;
const POLLIN = 1;
const POLLFD_BYTES = 8;
const WAIT_INTERVAL_MS = 10;

let knownBootId: string | undefined;

/** /proc/sys/kernel/random/boot_id, read once. */
export function bootId(): string {
  knownBootId ??= readFileSync('/proc/sys/kernel/random/boot_id', 'latin1').trim();
  return knownBootId;
}

/** The identity of a living process; undefined when there is none (a zombie counts as dead). */
export function identify(pid: number): ProcessIdentity | undefined {
  const stat = readProc(`/proc/${pid}/stat`);
  // The name of the program, in parentheses, may hold anything: what follows the last one is safe.
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
  const [state] = fields;
  // proc(5): starttime is field 22, and the state, field 3, is the first here.
  const startTime = fields[19];
  if (state === 'Z' || state === 'X' || startTime === undefined) return undefined;
  return { pid, startTimeTicks: BigInt(startTime), bootId: bootId() };
}

/** Empty when the process is gone. */
function readProc(path: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch (error) {
    if (isErrno(error, 'ENOENT', 'ESRCH')) return '';
    throw error;
  }
}

/** True while exactly this process lives (and is no zombie). */
export function isAlive(identity: ProcessIdentity): boolean {
  if (identity.pid <= 0 || identity.bootId !== bootId()) return false;
  return identify(identity.pid)?.startTimeTicks === identity.startTimeTicks;
}

/** A pidfd of exactly this process; undefined when it is gone. The caller closes it. */
function openPidfd(identity: ProcessIdentity): number | undefined {
  const { pid } = identity;
  if (!isAlive(identity)) return undefined;
  const fd = libc().syscall(SYS_PIDFD_OPEN, pid, 0, 0, 0);
  if (fd < 0) {
    const error = systemError('pidfd_open', libc().errno(), `${pid}`);
    // EINVAL: the number is a thread's by now, so the process is gone.
    if (isErrno(error, 'ESRCH', 'EINVAL')) return undefined;
    throw error;
  }
  // Looked at again, now that the descriptor keeps the number from meaning another.
  if (isAlive(identity)) return fd;
  closeSync(fd);
  return undefined;
}

/** Signals exactly this process through a pidfd; false when it is gone already. */
export function signalProcess(identity: ProcessIdentity, signal: NodeJS.Signals | number): boolean {
  const fd = openPidfd(identity);
  if (fd === undefined) return false;
  try {
    const number = typeof signal === 'number' ? signal : constants.signals[signal];
    const result = libc().syscall(SYS_PIDFD_SEND_SIGNAL, fd, number, 0, 0);
    if (result === 0) return true;
    if (libc().errno() === constants.errno.ESRCH) return false;
    checked(result, 'pidfd_send_signal', `${identity.pid}`);
    return false;
  } finally {
    closeSync(fd);
  }
}

/** Calls back once for each watched process that ends: pidfds, polled in one system call. */
export interface ProcessWatch {
  /** Calls `onExit` within `intervalMs` of the end, or at once when it is gone already. */
  add(identity: ProcessIdentity, onExit: () => void): { close(): void };
  close(): void;
}

interface Watched {
  readonly fd: number;
  readonly onExit: () => void;
}

/** Watches any number of processes; while it watches one, it keeps this process up. */
export function watchProcesses(options: { readonly intervalMs: number }): ProcessWatch {
  const watched = new Set<Watched>();
  let timer: NodeJS.Timeout | undefined;
  /** The argument of poll(2); undefined after a change. */
  let table: { readonly entries: readonly Watched[]; readonly bytes: Buffer } | undefined;

  const drop = (entry: Watched) => {
    if (!watched.delete(entry)) return;
    table = undefined;
    closeSync(entry.fd);
    if (watched.size === 0) clearInterval(timer);
    if (watched.size === 0) timer = undefined;
  };
  const look = () => {
    table ??= pollTable([...watched]);
    const { entries, bytes } = table;
    if (libc().poll(bytes, entries.length, 0) <= 0) return;
    const ended = entries.filter((_, index) => bytes.readInt16LE(index * POLLFD_BYTES + 6) !== 0);
    for (const entry of ended) {
      if (!watched.has(entry)) continue;
      drop(entry);
      entry.onExit();
    }
  };
  return {
    add: (identity, onExit) => {
      const fd = openPidfd(identity);
      if (fd === undefined) {
        let closed = false;
        // Not within this call: the caller has not got its handle yet.
        setImmediate(() => {
          if (!closed) onExit();
        });
        return {
          close: () => {
            closed = true;
          },
        };
      }
      const entry: Watched = { fd, onExit };
      watched.add(entry);
      table = undefined;
      timer ??= setInterval(look, options.intervalMs);
      return { close: () => drop(entry) };
    },
    close: () => {
      for (const entry of [...watched]) drop(entry);
    },
  };
}

/** struct pollfd (poll(2)): int fd, short events, short revents. Little-endian, as Node is. */
function pollTable(entries: readonly Watched[]) {
  const bytes = Buffer.alloc(entries.length * POLLFD_BYTES);
  entries.forEach(({ fd }, index) => {
    bytes.writeInt32LE(fd, index * POLLFD_BYTES);
    bytes.writeInt16LE(POLLIN, index * POLLFD_BYTES + 4);
  });
  return { entries, bytes };
}

let waiting: ProcessWatch | undefined;

/** Resolves when the process is gone; rejects with the signal's reason. */
export async function waitForExit(identity: ProcessIdentity, signal: AbortSignal): Promise<void> {
  signal.throwIfAborted();
  waiting ??= watchProcesses({ intervalMs: WAIT_INTERVAL_MS });
  const watch = waiting;
  await new Promise<void>((resolve, reject) => {
    const onAbort = () => {
      entry.close();
      reject(signal.reason);
    };
    const entry = watch.add(identity, () => {
      signal.removeEventListener('abort', onAbort);
      resolve();
    });
    signal.addEventListener('abort', onAbort, { once: true });
  });
}

/** All living pids, of whichever cgroup or ancestors: just /proc's numbers. */
export function listPids(): number[] {
  return readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .map(Number);
}

/** All living processes whose environment, as they were started, has this variable and value. */
export function listByEnvironment(name: string, value: string): ProcessIdentity[] {
  const wanted = `${name}=${value}`;
  return listPids()
    .filter((pid) => environment(pid).includes(wanted))
    .flatMap((pid) => identify(pid) ?? []);
}

/** Empty for one that is gone, or not ours to look into. */
function environment(pid: number): string[] {
  try {
    return readProc(`/proc/${pid}/environ`).split('\0');
  } catch (error) {
    if (isErrno(error, 'EACCES', 'EPERM')) return [];
    throw error;
  }
}

/** The NUL-separated command line of a process; empty when it is gone. */
export function commandLine(pid: number): string[] {
  const text = readProc(`/proc/${pid}/cmdline`);
  if (text === '') return [];
  return (text.endsWith('\0') ? text.slice(0, -1) : text).split('\0');
}
