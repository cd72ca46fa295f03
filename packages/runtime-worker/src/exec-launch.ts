// Starting a command in a container by the engine's `exec`, in the driver's way. Detached: the engine
// ends once the command runs, which is ours then: its pipes or its terminal, and its exit, for we adopt
// orphans. In the foreground: the engine stays in front of the command and ends with its code.

import { randomBytes } from 'node:crypto';
import { Failure } from '@cribus/contracts/failure.ts';
import type { ContainerRecord } from '@cribus/contracts/gen/node/v1/records.ts';
import { FRAME } from '@cribus/contracts/session.ts';
import { openDescriptorInbox } from '@cribus/host/descriptor-inbox.ts';
import { readFileIfExists } from '@cribus/host/files.ts';
import { createMark, type ProcessMark } from '@cribus/host/process-marks.ts';
import { reapOrphan } from '@cribus/host/reap.ts';
import { type Child, type SpawnResult, spawn } from '@cribus/host/spawn.ts';
import { adoptTerminal, openTerminal } from '@cribus/host/terminals.ts';
import { type ExecFiles, type ExecOrder, readPid } from './exec-order.ts';
import { type Pump, pour, pump, type SessionChannel } from './session-channel.ts';
import { ENGINE_SOCKET_INFIX } from './sessions.ts';
import { readSize, terminalInput } from './terminal-input.ts';
import type { Worker } from './worker.ts';

export interface Launch {
  readonly order: ExecOrder;
  readonly record: ContainerRecord;
  readonly files: ExecFiles;
  readonly channel: SessionChannel;
  readonly mark: ProcessMark;
}

export interface Launched {
  readonly engine: Child;
  /** On the engine and on all that the command starts, where those are processes of the host. */
  readonly mark: ProcessMark;
  /** Resolves when the command runs, or the engine ended without starting it. */
  readonly started: Promise<unknown>;
  /** The exit code of the command; rejects with what the driver makes of a failed start. */
  readonly exited: Promise<number>;
  outputs(): readonly Pump[];
  /** Sends what is left once the command is gone. */
  finish(): void;
  /** Closes all streams. */
  close(): void;
}

const STDERR_KEPT_MAX = 4096;
const SIGNAL_BASE = 128;
const START_LOOK_MS = 10;

/** Throws when the engine can't be started at all. */
export function launch(worker: Worker, order: Omit<Launch, 'mark'>): Launched {
  const what = { ...order, mark: createMark() };
  const detached = worker.driver.execMode === 'detached';
  if (what.order.tty) {
    return detached ? detachedOnTerminal(worker, what) : foregroundOnTerminal(worker, what);
  }
  return onPipes(worker, what);
}

function argv(worker: Worker, { record, files }: Launch, more: readonly string[] = []): string[] {
  const { driver, engine } = worker;
  return [
    ...engine.argv('exec', []).slice(0, -1),
    ...['--log', `${driver.logPrefix}${files.log}`],
    ...['exec', '--process', files.process, '--pid-file', files.pid],
    ...(driver.execMode === 'detached' ? ['--detach'] : []),
    ...(driver.signalBy === 'engine' ? ['--internal-pid-file', files.innerPid] : []),
    ...more,
    record.id,
  ];
}

function onPipes(worker: Worker, what: Launch): Launched {
  const { order, channel } = what;
  const child = spawn({
    command: worker.engine.command,
    args: argv(worker, what),
    mark: what.mark,
    ...(order.stdin ? { stdin: 'pipe' } : {}),
    stdout: order.stdout ? 'pipe' : 'null',
    stderr: 'pipe',
  });
  const said = { stderr: '' };
  const outputs: Pump[] = [];
  channel.receive((type, payload) => {
    if (child.stdin === undefined) return;
    if (type === FRAME.stdin) pour(channel, payload, child.stdin);
    if (type === FRAME.stdinEnd) child.stdin.end();
  });
  const begin = () => {
    outputs.push(
      pump(child.stdout, channel, { type: FRAME.stdout }),
      pump(child.stderr, channel, {
        type: FRAME.stderr,
        onData: (chunk) => {
          if (said.stderr.length < STDERR_KEPT_MAX) said.stderr += chunk.toString('utf8');
          return order.stderr;
        },
      }),
    );
  };
  const detached = worker.driver.execMode === 'detached';
  // What a detaching engine says there is no output of the command: only an exit of zero is a start.
  if (!detached) begin();
  const exited = detached
    ? orphanExit(worker, what, child, begin)
    : foregroundExit(worker, what, child, () => said.stderr);
  return {
    engine: child,
    mark: what.mark,
    started: detached ? child.exited : awaitStart(worker, what, child),
    exited,
    outputs: () => outputs,
    finish: () => undefined,
    close: () => {
      for (const stream of [child.stdin, child.stdout, child.stderr]) stream?.destroy();
    },
  };
}

function detachedOnTerminal(worker: Worker, what: Launch): Launched {
  const { order, channel } = what;
  const suffix = randomBytes(4).toString('hex');
  const path = `${worker.paths.sessionSocket}${ENGINE_SOCKET_INFIX}${suffix}`;
  const inbox = openDescriptorInbox(path);
  const outputs: Pump[] = [];
  const opened: { terminal?: ReturnType<typeof adoptTerminal>; closed: boolean } = {
    closed: false,
  };
  const begin = () => {
    const master = inbox.take();
    inbox.close();
    if (master === undefined) {
      throw new Failure('unavailable', `${worker.engine.command} sent no terminal`, {
        stage: 'engine exec',
      });
    }
    const terminal = adoptTerminal(master);
    opened.terminal = terminal;
    if (opened.closed) return terminal.close();
    const stream = terminal.openMaster();
    outputs.push(pump(stream, channel, { type: FRAME.stdout, onData: () => order.stdout }));
    channel.receive(
      terminalInput({ channel, master: stream, stdin: order.stdin, resize: terminal.resize }),
    );
  };
  let child: Child;
  try {
    child = spawn({
      command: worker.engine.command,
      args: argv(worker, what, ['--console-socket', path]),
      mark: what.mark,
      stdout: 'null',
      stderr: 'null',
    });
  } catch (error) {
    inbox.close();
    throw error;
  }
  return {
    engine: child,
    mark: what.mark,
    started: child.exited,
    exited: orphanExit(worker, what, child, begin).finally(inbox.close),
    outputs: () => outputs,
    finish: () => {
      const rest = opened.terminal?.readRest();
      if (order.stdout && rest !== undefined) channel.send(FRAME.stdout, rest);
    },
    close: () => {
      opened.closed = true;
      opened.terminal?.close();
    },
  };
}

function foregroundOnTerminal(worker: Worker, what: Launch): Launched {
  const { order, channel } = what;
  const terminal = openTerminal({ raw: false });
  try {
    const first = channel.peek(FRAME.resize);
    if (first !== undefined) terminal.resize(readSize(first));
    const master = terminal.openMaster();
    const output = pump(master, channel, { type: FRAME.stdout, onData: () => order.stdout });
    const { slaveFd } = terminal;
    const child = spawn({
      command: worker.engine.command,
      args: argv(worker, what),
      mark: what.mark,
      stdout: 'null',
      stderr: 'null',
      fds: { 0: slaveFd, 1: slaveFd, 2: slaveFd },
    });
    terminal.closeSlave();
    // The terminal controls nobody: the kernel would throw unread output away when the engine, as
    // the one that it controls, ends. So the engine is told by us, and passes the signals on.
    const take = terminalInput({
      ...{ channel, master, stdin: order.stdin },
      resize: (size) => {
        terminal.resize(size);
        child.kill('SIGWINCH');
      },
    });
    const exited = foregroundExit(worker, what, child, () => '');
    const started = awaitStart(worker, what, child);
    void started.then(() =>
      channel.receive((type, payload) => {
        const signals = type === FRAME.stdin ? terminal.signalsOf(payload) : [];
        take(type, payload);
        for (const signal of order.stdin ? signals : []) child.kill(signal);
      }),
    );
    return {
      engine: child,
      mark: what.mark,
      started,
      exited,
      outputs: () => [output],
      finish: () => {
        const rest = terminal.readRest();
        if (order.stdout) channel.send(FRAME.stdout, rest);
      },
      close: terminal.close,
    };
  } catch (error) {
    terminal.close();
    throw error;
  }
}

async function orphanExit(
  worker: Worker,
  what: Launch,
  engine: Child,
  begin: () => void,
): Promise<number> {
  const result = await engine.exited;
  if (result.exitCode !== 0) throw await whyNotStarted(worker, what, { result, said: '' });
  begin();
  const status = await reapOrphan(await readPid(what.files.pid));
  // wait(2): the low seven bits are the signal, the next byte the code.
  return (status & 0x7f) === 0 ? (status >> 8) & 0xff : SIGNAL_BASE + (status & 0x7f);
}

/** Resolves once the command runs, and the engine passes signals on instead of dying of them. */
async function awaitStart(worker: Worker, { files }: Launch, engine: Child): Promise<void> {
  let over = false;
  void engine.exited.then(() => {
    over = true;
  });
  while (!over && (await readPid(files.pid)) === 0) await worker.service.clock.sleep(START_LOOK_MS);
}

async function foregroundExit(
  worker: Worker,
  what: Launch,
  engine: Child,
  said: () => string,
): Promise<number> {
  const result = await engine.exited;
  const exitCode = result.exitCode ?? SIGNAL_BASE + (result.signal ?? 0);
  // The engine writes the pid file only once the command runs.
  if (exitCode === 0 || (await readPid(what.files.pid)) > 0) return exitCode;
  throw await whyNotStarted(worker, what, { result, said: said() });
}

async function whyNotStarted(
  worker: Worker,
  what: Launch,
  engine: { readonly result: SpawnResult; readonly said: string },
): Promise<Failure> {
  const logged = (await readFileIfExists(what.files.log))?.toString('utf8') ?? '';
  const output = engine.said.trim() || logged;
  return worker.driver.classify('exec', { exitCode: engine.result.exitCode, output });
}
