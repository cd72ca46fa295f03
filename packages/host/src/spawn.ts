// Starting programs by posix_spawn(3): child_process.spawn forks the whole process and blocks the
// event loop in proportion to its memory (1 to 30 ms); this takes 0.2 to 0.4 ms at any size.
// Children are reaped by pid only, so that child_process keeps working beside this.
import { accessSync, closeSync, constants, statSync, writeSync } from 'node:fs';
import { Socket } from 'node:net';
import { constants as osConstants } from 'node:os';
import { join } from 'node:path';
import { isErrno, systemError } from './errno.ts';
import { checked, libc } from './libc.ts';
import { type ProcessMark, withMark } from './process-marks.ts';
import { isUnreaped, reap } from './reap.ts';

export interface SpawnOptions {
  /** Absolute path, or a name looked up on PATH. */
  readonly command: string;
  readonly args: readonly string[];
  /** The whole environment of the child; default: PATH and nothing else of ours. */
  readonly env?: Readonly<Record<string, string>>;
  readonly cwd?: string;
  /** Given to the child's stdin, which is then closed; absent: /dev/null. */
  readonly stdin?: Uint8Array | 'pipe';
  /** Where output goes; `capture` collects up to `outputBytesMax`. Default capture, capture. */
  readonly stdout?: Output;
  readonly stderr?: Output;
  /** Further descriptors: child number to ours. */
  readonly fds?: Readonly<Record<number, number>>;
  /** By which all that it starts can be found again (process-marks.ts). */
  readonly mark?: ProcessMark;
  /** Per captured stream; the rest is read and dropped. Default 1 MiB. */
  readonly outputBytesMax?: number;
}

type Output = 'capture' | 'pipe' | 'null' | { readonly fd: number };

export interface SpawnResult {
  /** Undefined when a signal ended it. */
  readonly exitCode: number | undefined;
  readonly signal: number | undefined;
  readonly stdout: Buffer;
  readonly stderr: Buffer;
  readonly truncated: boolean;
}

export interface Child {
  readonly pid: number;
  readonly stdin: Socket | undefined;
  readonly stdout: Socket | undefined;
  readonly stderr: Socket | undefined;
  /**
   * Resolves when it has exited and its captured streams are at their end. Never rejects. When
   * something that it left behind holds a captured stream open (a monitor that went into the
   * background), that stream is given up 100 ms after the exit, or after 1 s if data keeps coming.
   */
  readonly exited: Promise<SpawnResult>;
  /**
   * Signals the process, or its whole group (it leads a session of its own). Does nothing once the
   * process has been reaped, for its number may then be another's.
   */
  kill(signal: NodeJS.Signals | number, target?: 'process' | 'group'): void;
}

const PATH_DEFAULT = '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin';
const OUTPUT_BYTES_MAX = 1024 * 1024;
/** From <spawn.h>. */
const POSIX_SPAWN_SETSIGDEF = 0x04;
const POSIX_SPAWN_SETSIGMASK = 0x08;
const POSIX_SPAWN_SETSID = 0x80;
/** Over glibc's posix_spawnattr_t (336), posix_spawn_file_actions_t (80) and sigset_t (128). */
const OPAQUE_BYTES = 512;
/** From <fcntl.h>; the same on x86-64 and arm64. */
const O_CLOEXEC = 0o2000000;
const F_DUPFD_CLOEXEC = 1030;
/** What fits into any pipe without blocking: it has at least one page (pipe(7)). */
const PIPE_BYTES_MIN = 4096;
const DRAIN_MS = 100;
const DRAIN_TURNS_MAX = 10;
/** SIGKILL does not end a process in an uninterruptible sleep; `run` then stops waiting. */
const KILL_WAIT_MS = 5000;

/** Starts a program in a session of its own. Throws when it can't be started (ENOENT, EACCES). */
export function spawn(options: SpawnOptions): Child {
  const env = options.env ?? { PATH: process.env['PATH'] ?? PATH_DEFAULT };
  const path = resolveCommand(options.command, env['PATH'] ?? process.env['PATH'] ?? PATH_DEFAULT);
  const plumbing = openPlumbing(options);
  let pid: number;
  try {
    const start = () => posixSpawn(path, options, { env, targets: plumbing.targets });
    pid = options.mark === undefined ? start() : withMark(options.mark, start);
  } catch (error) {
    plumbing.closeOurs();
    throw error;
  } finally {
    plumbing.closeTheirs();
  }
  const bytesMax = options.outputBytesMax ?? OUTPUT_BYTES_MAX;
  const captures = [plumbing.stdout, plumbing.stderr].map((end) =>
    end?.capture === true ? captureStream(end.fd, bytesMax) : undefined,
  );
  const [stdout, stderr] = captures;
  const reaped = reap(pid);
  return {
    pid,
    stdin: openStdin(plumbing.stdin, options.stdin),
    stdout: plumbing.stdout?.capture === false ? readableSocket(plumbing.stdout.fd) : undefined,
    stderr: plumbing.stderr?.capture === false ? readableSocket(plumbing.stderr.fd) : undefined,
    exited: reaped.then(async (status) => {
      await drain(captures.filter((capture) => capture !== undefined));
      return {
        // wait(2): the low seven bits are the signal, the next byte the code.
        exitCode: (status & 0x7f) === 0 ? (status >> 8) & 0xff : undefined,
        signal: (status & 0x7f) === 0 ? undefined : status & 0x7f,
        stdout: Buffer.concat(stdout?.chunks ?? []),
        stderr: Buffer.concat(stderr?.chunks ?? []),
        truncated: stdout?.truncated === true || stderr?.truncated === true,
      };
    }),
    kill: (signal, target = 'process') => {
      if (!isUnreaped(pid)) return;
      const number = typeof signal === 'number' ? signal : osConstants.signals[signal];
      const result = libc().kill(target === 'group' ? -pid : pid, number);
      if (result < 0 && libc().errno() !== osConstants.errno.ESRCH) {
        checked(result, 'kill', `${target} ${pid}`);
      }
    },
  };
}

/**
 * Runs a program to its end. When the signal aborts, the group is killed (SIGKILL), awaited, and
 * the signal's reason thrown. A non-zero exit is a result, not an error.
 */
export async function run(
  options: SpawnOptions & { readonly signal: AbortSignal },
): Promise<SpawnResult> {
  const { signal } = options;
  signal.throwIfAborted();
  const child = spawn(options);
  let giveUp: NodeJS.Timeout | undefined;
  let onAbort: (() => void) | undefined;
  const stuck = new Promise<undefined>((resolve) => {
    onAbort = () => {
      child.kill('SIGKILL', 'group');
      giveUp = setTimeout(resolve, KILL_WAIT_MS, undefined);
    };
    signal.addEventListener('abort', onAbort, { once: true });
  });
  const result = await Promise.race([child.exited, stuck]);
  clearTimeout(giveUp);
  if (onAbort !== undefined) signal.removeEventListener('abort', onAbort);
  signal.throwIfAborted();
  if (result === undefined) throw systemError('waitpid', 'ETIMEDOUT', `'${options.command}'`);
  return result;
}

/** The absolute path of a program. Throws ENOENT when no directory of `path` has it. */
export function resolveCommand(command: string, path = process.env['PATH'] ?? PATH_DEFAULT) {
  if (command.includes('/')) return command;
  for (const directory of path.split(':')) {
    if (directory === '') continue;
    const candidate = join(directory, command);
    try {
      accessSync(candidate, constants.X_OK);
      if (statSync(candidate).isFile()) return candidate;
    } catch (error) {
      if (!isErrno(error, 'ENOENT', 'EACCES', 'ENOTDIR', 'ELOOP')) throw error;
    }
  }
  throw systemError('posix_spawn', 'ENOENT', `'${command}' is not on PATH (${path})`);
}

interface OurEnd {
  readonly fd: number;
  readonly capture: boolean;
}

interface Plumbing {
  /** Descriptors of the child: its number to ours; undefined is /dev/null. */
  readonly targets: ReadonlyMap<number, number | undefined>;
  readonly stdin: number | undefined;
  readonly stdout: OurEnd | undefined;
  readonly stderr: OurEnd | undefined;
  closeOurs(): void;
  closeTheirs(): void;
}

function openPlumbing(options: SpawnOptions): Plumbing {
  const targets = new Map<number, number | undefined>();
  const ours: number[] = [];
  const theirs: number[] = [];
  const closeAll = (fds: number[]) => {
    for (const fd of fds.splice(0)) closeSync(fd);
  };
  const output = (target: number, where: Output = 'capture'): OurEnd | undefined => {
    if (where === 'null') {
      targets.set(target, undefined);
      return undefined;
    }
    if (typeof where === 'object') {
      targets.set(target, where.fd);
      return undefined;
    }
    const [readEnd, writeEnd] = openPipe();
    ours.push(readEnd);
    theirs.push(writeEnd);
    targets.set(target, writeEnd);
    return { fd: readEnd, capture: where === 'capture' };
  };
  try {
    let stdin: number | undefined;
    if (options.stdin === undefined) targets.set(0, undefined);
    else {
      const [readEnd, writeEnd] = openPipe();
      stdin = writeEnd;
      ours.push(writeEnd);
      theirs.push(readEnd);
      targets.set(0, readEnd);
    }
    const stdout = output(1, options.stdout);
    const stderr = output(2, options.stderr);
    for (const [target, fd] of Object.entries(options.fds ?? {})) targets.set(Number(target), fd);
    const closers = { closeOurs: () => closeAll(ours), closeTheirs: () => closeAll(theirs) };
    return { targets, stdin, stdout, stderr, ...closers };
  } catch (error) {
    closeAll([...ours, ...theirs]);
    throw error;
  }
}

/** The read end and the write end; no other child inherits either. */
function openPipe(): readonly [number, number] {
  const fds = new Int32Array(2);
  checked(libc().pipe2(fds, O_CLOEXEC), 'pipe2', '');
  return [fds[0] ?? -1, fds[1] ?? -1];
}

interface ChildSetting {
  readonly env: Readonly<Record<string, string>>;
  readonly targets: ReadonlyMap<number, number | undefined>;
}

function posixSpawn(path: string, options: SpawnOptions, setting: ChildSetting): number {
  const c = libc();
  const actions = Buffer.alloc(OPAQUE_BYTES);
  const attributes = Buffer.alloc(OPAQUE_BYTES);
  const copies: number[] = [];
  c.posix_spawn_file_actions_init(actions);
  c.posix_spawnattr_init(attributes);
  try {
    const targetMax = Math.max(...setting.targets.keys());
    for (const [target, source] of setting.targets) {
      if (source === undefined) {
        c.posix_spawn_file_actions_addopen(actions, target, '/dev/null', constants.O_RDWR, 0);
        continue;
      }
      let from = source;
      if (source <= targetMax) {
        // An earlier dup2 could overwrite it; and one onto itself would leave close-on-exec set.
        from = c.fcntl(source, F_DUPFD_CLOEXEC, 'int', targetMax + 1);
        checked(from, 'fcntl', `descriptor ${source} for '${path}'`);
        copies.push(from);
      }
      c.posix_spawn_file_actions_adddup2(actions, from, target);
    }
    // Ours are close-on-exec all, but not what whoever started us may have left open.
    for (let fd = 0; fd < targetMax; fd += 1) {
      if (!setting.targets.has(fd)) c.posix_spawn_file_actions_addclose(actions, fd);
    }
    c.posix_spawn_file_actions_addclosefrom_np(actions, targetMax + 1);
    if (options.cwd !== undefined) c.posix_spawn_file_actions_addchdir_np(actions, options.cwd);
    const allSignals = Buffer.alloc(OPAQUE_BYTES);
    c.sigfillset(allSignals);
    // Node ignores SIGPIPE and its threads block signals: a child must inherit neither.
    c.posix_spawnattr_setsigdefault(attributes, allSignals);
    c.posix_spawnattr_setsigmask(attributes, Buffer.alloc(OPAQUE_BYTES));
    const flags = POSIX_SPAWN_SETSID | POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETSIGMASK;
    c.posix_spawnattr_setflags(attributes, flags);
    const pid = new Int32Array(1);
    const environment = Object.entries(setting.env).map(([name, value]) => `${name}=${value}`);
    const argv = [options.command, ...options.args, null];
    const errno = c.posix_spawn(pid, path, actions, attributes, argv, [...environment, null]);
    if (errno !== 0) {
      const where = options.cwd === undefined ? '' : ` in '${options.cwd}'`;
      throw systemError('posix_spawn', errno, `'${path}'${where}`);
    }
    return pid[0] ?? -1;
  } finally {
    for (const fd of copies) closeSync(fd);
    c.posix_spawn_file_actions_destroy(actions);
    c.posix_spawnattr_destroy(attributes);
  }
}

function openStdin(fd: number | undefined, content: SpawnOptions['stdin']): Socket | undefined {
  if (fd === undefined) return undefined;
  if (content instanceof Uint8Array && content.byteLength <= PIPE_BYTES_MIN) {
    try {
      if (content.byteLength > 0) writeSync(fd, content);
    } catch (error) {
      // The child has ended, or closed its stdin, without reading it.
      if (!isErrno(error, 'EPIPE')) throw error;
    } finally {
      closeSync(fd);
    }
    return undefined;
  }
  const socket = new Socket({ fd, readable: false, writable: true });
  // A child that does not read its input to the end breaks the pipe; its exit code tells.
  socket.on('error', () => undefined);
  if (!(content instanceof Uint8Array)) return socket;
  socket.end(content);
  return undefined;
}

function readableSocket(fd: number): Socket {
  return new Socket({ fd, readable: true, writable: false });
}

interface Capture {
  readonly chunks: Buffer[];
  readonly closed: Promise<void>;
  truncated: boolean;
  bytesRead: number;
  destroy(): void;
}

function captureStream(fd: number, bytesMax: number): Capture {
  const socket = readableSocket(fd);
  const capture: Capture = {
    chunks: [],
    closed: new Promise((resolve) => socket.once('close', () => resolve())),
    truncated: false,
    bytesRead: 0,
    destroy: () => socket.destroy(),
  };
  socket.on('error', () => undefined);
  socket.on('data', (chunk: Buffer) => {
    const room = Math.max(0, bytesMax - capture.bytesRead);
    capture.bytesRead += chunk.length;
    if (chunk.length > room) capture.truncated = true;
    if (room > 0) capture.chunks.push(chunk.subarray(0, room));
  });
  return capture;
}

async function drain(captures: readonly Capture[]): Promise<void> {
  let ended = false;
  const end = Promise.all(captures.map((capture) => capture.closed)).then(() => {
    ended = true;
  });
  for (let turn = 0; turn < DRAIN_TURNS_MAX && !ended; turn += 1) {
    const before = captures.reduce((sum, capture) => sum + capture.bytesRead, 0);
    let timer: NodeJS.Timeout | undefined;
    // One immediate after the timer, pending input has been read even if this process was busy.
    const pause = new Promise<void>((resolve) => {
      timer = setTimeout(() => setImmediate(resolve), DRAIN_MS);
    });
    await Promise.race([end, pause]);
    clearTimeout(timer);
    if (before === captures.reduce((sum, capture) => sum + capture.bytesRead, 0)) break;
  }
  for (const capture of captures) capture.destroy();
}
