// conmon, the monitor: one small process per container that holds its stdio, writes its CRI log,
// reaps it and records its exit. It outlives this worker.

import { closeSync, constants, writeSync } from 'node:fs';
import { open, symlink } from 'node:fs/promises';
import { Socket } from 'node:net';
import { basename, dirname, join } from 'node:path';
import { Failure } from '@cribus/contracts/failure.ts';
import type { CgroupHost } from '@cribus/host/cgroups.ts';
import { isErrno } from '@cribus/host/errno.ts';
import { createPipe } from '@cribus/host/pipes.ts';
import { identify, type ProcessIdentity, signalProcess } from '@cribus/host/processes.ts';
import { spawn } from '@cribus/host/spawn.ts';

export interface MonitorOptions {
  readonly conmon: string;
  readonly id: string;
  readonly name: string;
  readonly engine: string;
  /** In front of `create`. */
  readonly engineArgs: readonly string[];
  readonly bundle: string;
  readonly pidFile: string;
  readonly monitorPidFile: string;
  /** Absolute; empty: what the container says is read and forgotten. */
  readonly logPath: string;
  readonly exits: string;
  readonly persist: string;
  readonly tty: boolean;
  readonly stdin: boolean;
  readonly stdinOnce: boolean;
  /** criu's images: the engine restores from them instead of creating. */
  readonly restoreFrom?: string;
}

/** In the bundle, a link to the log's directory: conmon takes a `:` in a log path for its end. */
const LOG_LINK = 'log-directory';
/** Descriptors of conmon, told by the environment (conmon, src/conmon.c). */
const SYNC_FD = 3;
const START_FD = 4;
/** A sync message holds at most conmon's 8 KiB buffer and its JSON escapes. */
const SYNC_BYTES_MAX = 64 * 1024;

/** The log as conmon is told: relative to the bundle where the path holds a colon. */
export function monitorLogPath(logPath: string): string {
  return logPath.includes(':') ? join(LOG_LINK, basename(logPath)) : logPath;
}

/** conmon's command line (conmon.8). */
export function monitorArgv(options: MonitorOptions): string[] {
  const { logPath } = options;
  const argv = [
    ...['--api-version', '1', '-c', options.id, '-u', options.id, '-n', options.name],
    ...['-r', options.engine, ...options.engineArgs.flatMap((arg) => ['--runtime-arg', arg])],
    ...['-b', options.bundle, '-p', options.pidFile, '--conmon-pidfile', options.monitorPidFile],
    ...['-l', logPath === '' ? 'none' : `k8s-file:${monitorLogPath(logPath)}`, '--no-sync-log'],
    ...['--log-level', 'error', '--exit-dir', options.exits, '--persist-dir', options.persist],
    ...['--socket-dir-path', options.bundle, '--full-attach', '--sync'],
  ];
  if (options.tty) argv.push('-t');
  if (options.stdin) argv.push('-i');
  // A terminal has no end of input that a client's leaving could be, as for containerd.
  if (options.stdin && (!options.stdinOnce || options.tty)) argv.push('--leave-stdin-open');
  if (options.restoreFrom !== undefined) argv.push('--restore', options.restoreFrom);
  return argv;
}

export type SyncMessage =
  | { readonly kind: 'created'; readonly pid: number }
  | { readonly kind: 'failed'; readonly message: string };

/** Reads what conmon wrote to its sync pipe; empty when it died before saying anything. */
export function parseSyncMessage(text: string): SyncMessage {
  const line = text.trim();
  if (line === '') return { kind: 'failed', message: 'the monitor ended without a word' };
  const { data, pid, message } = JSON.parse(line) as {
    data?: number;
    pid?: number;
    message?: string;
  };
  const value = data ?? pid ?? -1;
  if (value > 0) return { kind: 'created', pid: value };
  return { kind: 'failed', message: (message ?? 'the engine failed without a word').trim() };
}

export interface MonitorStarted {
  readonly monitor: ProcessIdentity;
  readonly outcome: SyncMessage;
}

/**
 * Starts conmon, moves it into the monitors' cgroup, and waits for the engine's `create` to end, which
 * hides the 10 ms that the kernel takes for the move. Raises unavailable when conmon can't be started. When the signal aborts,
 * conmon is killed; what the engine left is the caller's undo.
 */
export async function startMonitor(
  options: MonitorOptions,
  host: { readonly cgroups: CgroupHost; readonly cgroup: string; readonly signal: AbortSignal },
): Promise<MonitorStarted> {
  if (options.logPath.includes(':')) {
    if (basename(options.logPath).includes(':')) {
      throw new Failure(
        'invalid_argument',
        `log file name "${basename(options.logPath)}" has a colon`,
      );
    }
    await symlink(dirname(options.logPath), join(options.bundle, LOG_LINK));
  }
  const sync = createPipe();
  const start = createPipe();
  let child: ReturnType<typeof spawn>;
  try {
    child = spawn({
      command: options.conmon,
      args: monitorArgv(options),
      cwd: options.bundle,
      env: {
        PATH: process.env['PATH'] ?? '/usr/sbin:/usr/bin:/sbin:/bin',
        _OCI_SYNCPIPE: String(SYNC_FD),
        _OCI_STARTPIPE: String(START_FD),
      },
      stdout: 'null',
      stderr: 'null',
      fds: { [SYNC_FD]: sync.writeFd, [START_FD]: start.readFd },
    });
  } catch (error) {
    closeSync(sync.readFd);
    closeSync(start.writeFd);
    throw new Failure('unavailable', `${options.conmon} can't be started: ${String(error)}`, {
      stage: 'monitor',
      cause: error,
    });
  } finally {
    closeSync(sync.writeFd);
    closeSync(start.readFd);
  }
  return await converse(child.pid, { ...host, readFd: sync.readFd, startFd: start.writeFd });
}

async function converse(
  pid: number,
  io: {
    readonly cgroups: CgroupHost;
    readonly cgroup: string;
    readonly signal: AbortSignal;
    readonly readFd: number;
    readonly startFd: number;
  },
): Promise<MonitorStarted> {
  const text = readAll(io.readFd, io.signal);
  const monitor = identify(pid);
  try {
    writeSync(io.startFd, 'x');
  } finally {
    closeSync(io.startFd);
  }
  try {
    const [message] = await Promise.all([text, joinUnlessEnded(io, pid)]);
    const outcome = parseSyncMessage(message);
    if (monitor === undefined && outcome.kind === 'created') {
      throw new Failure('bug', 'the monitor was gone before it could be identified');
    }
    return { monitor: monitor ?? { pid, startTimeTicks: 0n, bootId: '' }, outcome };
  } catch (error) {
    if (monitor !== undefined) signalProcess(monitor, 'SIGKILL');
    throw error;
  }
}

/** In the bundle; takes a number, then two of its own (conmon, src/ctrl.c). */
export const MONITOR_CONTROL = 'ctl';

/** What a monitor can be told. */
export type MonitorMessage =
  | 'reopen-log'
  | { readonly resize: { readonly columns: number; readonly rows: number } };

export function monitorMessage(message: MonitorMessage): string {
  if (message === 'reopen-log') return '2 0 0\n';
  return `1 ${message.resize.rows} ${message.resize.columns}\n`;
}

/** Never waits: a fifo that nobody reads has no monitor. Throws ENXIO or ENOENT then. */
export async function tellMonitor(bundle: string, message: MonitorMessage): Promise<void> {
  const file = await open(join(bundle, MONITOR_CONTROL), constants.O_WRONLY | constants.O_NONBLOCK);
  try {
    await file.write(monitorMessage(message));
  } finally {
    await file.close();
  }
}

/** A monitor whose engine failed at once has said so, and is gone. */
async function joinUnlessEnded(
  { cgroups, cgroup }: { readonly cgroups: CgroupHost; readonly cgroup: string },
  pid: number,
): Promise<void> {
  try {
    await cgroups.join(cgroup, pid);
  } catch (error) {
    if (!isErrno(error, 'ESRCH')) throw error;
  }
}

function readAll(fd: number, signal: AbortSignal): Promise<string> {
  return new Promise((resolve, reject) => {
    const socket = new Socket({ fd, readable: true, writable: false });
    const abort = () => socket.destroy(signal.reason as Error);
    if (signal.aborted) abort();
    signal.addEventListener('abort', abort, { once: true });
    let text = '';
    socket.setEncoding('utf8');
    socket.on('data', (chunk: string) => {
      if (text.length < SYNC_BYTES_MAX) text += chunk;
      // One line is all that a create says; the pipe itself stays open as long as conmon lives.
      if (text.includes('\n')) finish();
    });
    const finish = () => {
      signal.removeEventListener('abort', abort);
      socket.destroy();
      resolve(text);
    };
    socket.on('end', finish);
    socket.on('error', reject);
  });
}
