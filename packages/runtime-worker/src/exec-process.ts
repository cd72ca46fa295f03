// A command in a running container, with its streams on a session: what exec and exec-sync share. It
// starts when the session is dialled, so at most once, and ends with it.

import { randomUUID } from 'node:crypto';
import { mkdir, readFile, rm } from 'node:fs/promises';
import { join } from 'node:path';
import type { Writable } from 'node:stream';
import { Failure } from '@cribus/contracts/failure.ts';
import { ContainerPhase, type ContainerRecord } from '@cribus/contracts/gen/node/v1/records.ts';
import type { Session } from '@cribus/contracts/gen/node/v1/verbs.ts';
import { FRAME } from '@cribus/contracts/session.ts';
import { readFileIfExists, writeFileAtomic } from '@cribus/host/files.ts';
import { type Child, spawn } from '@cribus/host/spawn.ts';
import { openTerminal, type Terminal, type TerminalSize } from '@cribus/host/terminals.ts';
import { execProcess } from '@cribus/oci/process.ts';
import type { Spec } from '@cribus/oci/spec.ts';
import { killExec } from './kill-exec.ts';
import { phaseName } from './phases.ts';
import { type Pump, pour, pump, type SessionChannel } from './session-channel.ts';
import { placesOf, requireContainer, type Worker } from './worker.ts';

/** How long output is awaited that a background child of the command still holds open. */
const DRAIN_BUDGET_MS = 2_000;
const DRAIN_LOOK_MS = 100;
/** What a pipe holds at most that nobody has enlarged (pipe(7)). */
const PIPE_BYTES_MAX = 64 * 1024;
const ARGS_MAX = 8192;
const STDERR_KEPT_MAX = 4096;
/** End of input from a terminal: VEOF as every fresh one has it (termios(3)). */
const CTRL_D = 4;
const NEWLINE = 10;

export interface ExecOrder {
  readonly containerId: string;
  readonly cmd: readonly string[];
  readonly tty: boolean;
  readonly stdin: boolean;
  readonly stdout: boolean;
  readonly stderr: boolean;
  /** Zero: none. */
  readonly timeoutMs: number;
}

/** invalid_argument for a command that can't be one, wrong_state unless the container runs. */
export function prepareExec(worker: Worker, order: ExecOrder): Session {
  if (order.cmd.length === 0 || order.cmd.length > ARGS_MAX) {
    throw new Failure('invalid_argument', `exec in ${order.containerId}: no command, or too long`);
  }
  requireRunning(worker, order.containerId);
  return worker.sessions.prepare((channel) => runCommand(worker, order, channel));
}

function requireRunning(worker: Worker, id: string): ContainerRecord {
  const record = requireContainer(worker, id);
  if (record.phase !== ContainerPhase.RUNNING) {
    throw new Failure(
      'wrong_state',
      `container ${id} is ${phaseName(record.phase)}, so nothing can be executed in it`,
    );
  }
  return record;
}

/** Of one exec, in the bundle; gone with it. */
export interface ExecFiles {
  readonly directory: string;
  readonly process: string;
  /** Written by the engine once the command runs. */
  readonly pid: string;
  /** The pid inside the container, of engines that signal by it. */
  readonly innerPid: string;
  readonly log: string;
}

export function execFiles(bundle: string, name: string): ExecFiles {
  const directory = join(bundle, name);
  return {
    directory,
    process: join(directory, 'process.json'),
    pid: join(directory, 'pid'),
    innerPid: join(directory, 'inner-pid'),
    log: join(directory, 'log'),
  };
}

async function runCommand(
  worker: Worker,
  order: ExecOrder,
  channel: SessionChannel,
): Promise<void> {
  const record = requireRunning(worker, order.containerId);
  const { bundle } = placesOf(worker, record.id);
  const files = execFiles(bundle, `exec-${randomUUID()}`);
  await mkdir(files.directory, { mode: 0o700 });
  try {
    const spec = JSON.parse(await readFile(join(bundle, 'config.json'), 'utf8')) as Spec;
    const process = execProcess(spec.process, { args: order.cmd, tty: order.tty });
    await writeFileAtomic(files.process, JSON.stringify(process));
    channel.gone.throwIfAborted();
    const streams = start(worker, { order, record, files, channel });
    try {
      await follow(worker, { order, record, files, channel, streams });
    } finally {
      streams.close();
    }
  } finally {
    await rm(files.directory, { recursive: true, force: true });
  }
}

interface Starting {
  readonly order: ExecOrder;
  readonly record: ContainerRecord;
  readonly files: ExecFiles;
  readonly channel: SessionChannel;
}

interface Streams {
  readonly child: Child;
  readonly outputs: readonly Pump[];
  /** The beginning of stderr, where an engine says why it could not start the command. */
  stderr(): string;
  /** What is left of the output once the command and the engine are gone. */
  finish(): void;
  close(): void;
}

function start(worker: Worker, starting: Starting): Streams {
  return starting.order.tty ? startOnTerminal(worker, starting) : startOnPipes(worker, starting);
}

function engineArgv(worker: Worker, { record, files }: Starting): string[] {
  const { driver, engine } = worker;
  const front = engine.argv('exec', []).slice(0, -1);
  return [
    ...front,
    ...['--log', `${driver.logPrefix}${files.log}`],
    ...['exec', '--process', files.process, '--pid-file', files.pid],
    ...(driver.signalBy === 'engine' ? ['--internal-pid-file', files.innerPid] : []),
    record.id,
  ];
}

function startOnPipes(worker: Worker, starting: Starting): Streams {
  const { order, channel } = starting;
  const child = spawn({
    command: worker.engine.command,
    args: engineArgv(worker, starting),
    ...(order.stdin ? { stdin: 'pipe' } : {}),
    stdout: order.stdout ? 'pipe' : 'null',
    stderr: 'pipe',
  });
  const said = { stderr: '' };
  const outputs = [
    pump(child.stdout, channel, { type: FRAME.stdout }),
    pump(child.stderr, channel, {
      type: FRAME.stderr,
      onData: (chunk) => {
        if (said.stderr.length < STDERR_KEPT_MAX) said.stderr += chunk.toString('utf8');
        return order.stderr;
      },
    }),
  ];
  channel.receive((type, payload) => {
    if (child.stdin === undefined) return;
    if (type === FRAME.stdin) pour(channel, payload, child.stdin);
    if (type === FRAME.stdinEnd) child.stdin.end();
  });
  return {
    child,
    outputs,
    stderr: () => said.stderr,
    finish: () => undefined,
    close: () => {
      for (const stream of [child.stdin, child.stdout, child.stderr]) stream?.destroy();
    },
  };
}

function startOnTerminal(worker: Worker, starting: Starting): Streams {
  const { order, channel } = starting;
  const given = worker.driver.execTerminal === 'given';
  const terminal = openTerminal({ raw: !given });
  try {
    const master = terminal.openMaster();
    const output = pump(master, channel, { type: FRAME.stdout, onData: () => order.stdout });
    const running: { child?: Child } = {};
    // Before the start: an engine looks at the size when it begins.
    channel.receive(terminalInput(terminal, { master, order, channel, running }));
    const { slaveFd } = terminal;
    const child = spawn({
      command: worker.engine.command,
      args: engineArgv(worker, starting),
      stdout: 'null',
      stderr: given ? 'null' : 'pipe',
      fds: { 0: slaveFd, 1: slaveFd, ...(given ? { 2: slaveFd } : {}) },
    });
    running.child = child;
    terminal.closeSlave();
    const said = { stderr: '' };
    child.stderr?.on('data', (chunk: Buffer) => {
      if (said.stderr.length < STDERR_KEPT_MAX) said.stderr += chunk.toString('utf8');
    });
    return {
      child,
      outputs: [output],
      stderr: () => said.stderr,
      finish: () => {
        const rest = terminal.readRest();
        if (order.stdout) channel.send(FRAME.stdout, rest);
      },
      close: () => {
        child.stderr?.destroy();
        terminal.close();
      },
    };
  } catch (error) {
    terminal.close();
    throw error;
  }
}

function terminalInput(
  terminal: Terminal,
  io: {
    readonly master: Writable;
    readonly order: ExecOrder;
    readonly channel: SessionChannel;
    readonly running: { readonly child?: Child };
  },
): (type: number, payload: Buffer) => void {
  const { master, order, channel, running } = io;
  let lastByte = NEWLINE;
  return (type, payload) => {
    if (type === FRAME.resize) {
      terminal.resize(readSize(payload));
      // The terminal is nobody's controlling one, so that the kernel tells nobody.
      running.child?.kill('SIGWINCH');
    }
    if (!order.stdin) return;
    if (type === FRAME.stdin) {
      lastByte = payload.at(-1) ?? lastByte;
      pour(channel, payload, master);
    }
    // The first one only sends a line off that was begun.
    if (type === FRAME.stdinEnd) {
      master.write(Buffer.alloc(lastByte === NEWLINE ? 1 : 2, CTRL_D));
    }
  };
}

/** Raises data_loss for what is no size. */
export function readSize(payload: Buffer): TerminalSize {
  const { width, height } = JSON.parse(payload.toString('utf8')) as Record<string, unknown>;
  const valid = (value: unknown): value is number => Number.isInteger(value) && Number(value) >= 0;
  if (!valid(width) || !valid(height)) throw new Failure('data_loss', 'a size is not a size');
  return { columns: width, rows: height };
}

async function follow(
  worker: Worker,
  exec: Starting & { readonly streams: Streams },
): Promise<void> {
  const { clock, stopping } = worker.service;
  const { order, record, files, channel, streams } = exec;
  const { child } = streams;
  const late = order.timeoutMs > 0 ? clock.timeout(order.timeoutMs) : undefined;
  const limits = [channel.gone, stopping, ...(late === undefined ? [] : [late])];
  const ended = await Promise.race([child.exited, aborted(AbortSignal.any(limits))]);
  if (ended === undefined) {
    await killExec(worker, { record, files, child });
    if (channel.gone.aborted) return;
    const command = `command ${JSON.stringify(order.cmd[0])} in container ${record.id}`;
    if (late?.aborted !== true) {
      throw new Failure('unavailable', `${command} was killed: its worker is being stopped`);
    }
    throw new Failure('timeout', `${command} was killed after ${order.timeoutMs} ms`);
  }
  await Promise.all(streams.outputs.map((output) => drain(worker, output, channel.gone)));
  streams.finish();
  const exitCode = ended.exitCode ?? 128 + (ended.signal ?? 0);
  if (exitCode !== 0 && (await readFileIfExists(files.pid)) === undefined) {
    // The engine writes the pid file only once the command runs: it never did.
    const logged = (await readFileIfExists(files.log))?.toString('utf8') ?? '';
    const output = streams.stderr().trim() || logged;
    throw worker.driver.classify('exec', { exitCode, output });
  }
  channel.sendJson(FRAME.exit, { exitCode });
}

/**
 * Waits for the end of an output after that of its command. What a background child of the command
 * holds open is given up after a while, but not what a slow dialler has yet to take.
 */
async function drain(worker: Worker, output: Pump, gone: AbortSignal): Promise<void> {
  const { clock } = worker.service;
  const sentAtExit = output.sentBytes();
  const over = clock.timeout(DRAIN_BUDGET_MS);
  let ended = false;
  const end = output.ended.then(() => {
    ended = true;
  });
  while (!ended && !gone.aborted) {
    const sent = output.sentBytes();
    await Promise.race([end, clock.sleep(DRAIN_LOOK_MS, gone).catch(() => undefined)]);
    if (!over.aborted || output.waits()) continue;
    const quiet = output.sentBytes() === sent;
    if (quiet || output.sentBytes() - sentAtExit > PIPE_BYTES_MAX) return;
  }
}

function aborted(signal: AbortSignal): Promise<undefined> {
  return new Promise((resolve) => {
    if (signal.aborted) resolve(undefined);
    else signal.addEventListener('abort', () => resolve(undefined), { once: true });
  });
}
