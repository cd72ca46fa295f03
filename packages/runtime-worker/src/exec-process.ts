// A command in a running container, with its streams on a session: what exec and exec-sync share. It
// starts when the session is dialled, so at most once, and ends with it.

import { randomUUID } from 'node:crypto';
import { mkdir, readFile, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { Failure } from '@cribus/contracts/failure.ts';
import { ContainerPhase, type ContainerRecord } from '@cribus/contracts/gen/node/v1/records.ts';
import type { Session } from '@cribus/contracts/gen/node/v1/verbs.ts';
import { FRAME } from '@cribus/contracts/session.ts';
import { withJoinedSignal } from '@cribus/host/joined-signals.ts';
import { execProcess } from '@cribus/oci/process.ts';
import type { Spec } from '@cribus/oci/spec.ts';
import { execFailure } from './exec-failure.ts';
import { type Launched, launch } from './exec-launch.ts';
import { EXEC_PREFIX, type ExecFiles, type ExecOrder, execFiles } from './exec-order.ts';
import type { ExecStart } from './exec-starts.ts';
import { aborted, killExec } from './kill-exec.ts';
import { phaseName } from './phases.ts';
import type { Pump, SessionChannel } from './session-channel.ts';
import { readSize } from './terminal-input.ts';
import { placesOf, requireContainer, type Worker } from './worker.ts';

/** How long output is awaited that a background child of the command still holds open. */
const DRAIN_BUDGET_MS = 2_000;
const DRAIN_LOOK_MS = 100;
/**
 * So long an engine that hangs keeps its command's time from running, and the first few of a sandbox keep
 * others from starting.
 */
const START_HOLD_MS = 2_000;
/** What a pipe holds at most that nobody has enlarged (pipe(7)). */
const PIPE_BYTES_MAX = 64 * 1024;
const ARGS_MAX = 8192;

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

async function runCommand(
  worker: Worker,
  order: ExecOrder,
  channel: SessionChannel,
): Promise<void> {
  const record = requireRunning(worker, order.containerId);
  const { bundle } = placesOf(worker, record.id);
  const files = execFiles(bundle, `${EXEC_PREFIX}${randomUUID()}`);
  await mkdir(files.directory, { mode: 0o700 });
  let exitCode: number | undefined;
  try {
    const spec = JSON.parse(await readFile(join(bundle, 'config.json'), 'utf8')) as Spec;
    const first = channel.peek(FRAME.resize);
    const size = order.tty && first !== undefined ? readSize(first) : undefined;
    const process = {
      ...execProcess(spec.process, { args: order.cmd, tty: order.tty }),
      ...(size === undefined ? {} : { consoleSize: { width: size.columns, height: size.rows } }),
    };
    await writeFile(files.process, JSON.stringify(process), { mode: 0o600 });
    exitCode = await follow(worker, { order, record, files, channel }).catch((error: unknown) => {
      throw execFailure(record, error);
    });
  } finally {
    await rm(files.directory, { recursive: true, force: true });
  }
  // Said last: whoever hears it finds nothing of the command any more.
  if (exitCode !== undefined) channel.sendJson(FRAME.exit, { exitCode });
}

interface Execution {
  readonly order: ExecOrder;
  readonly record: ContainerRecord;
  readonly files: ExecFiles;
  readonly channel: SessionChannel;
}

/** The exit code; undefined when the dialler is gone. */
async function follow(worker: Worker, exec: Execution): Promise<number | undefined> {
  const { record, files, channel } = exec;
  const { stopping } = worker.service;
  const { launched, late } = await withJoinedSignal([channel.gone, stopping], (over) =>
    worker.execStarts.run(record.sandboxId, () => start(worker, exec, over), over),
  ).catch((error: unknown) => {
    throw stopping.aborted ? whyCut(exec, false) : error;
  });
  const limits = [channel.gone, stopping, ...(late === undefined ? [] : [late])];
  try {
    // Undefined when the command has to be killed.
    const exitCode = await withJoinedSignal(limits, (cut) =>
      Promise.race([launched.exited, aborted(cut)]),
    );
    if (exitCode === undefined) {
      await killExec(worker, { record, files, launched });
      if (channel.gone.aborted) return undefined;
      throw whyCut(exec, late?.aborted === true);
    }
    await drain(worker, launched, channel.gone);
    return exitCode;
  } finally {
    launched.close();
  }
}

interface Started extends ExecStart {
  readonly launched: Launched;
  /** Aborts when the command's time is over; undefined for one that has none. */
  readonly late: AbortSignal | undefined;
}

/** Its time is counted from when it runs, as containerd does: a busy host starts many slowly. */
async function start(worker: Worker, exec: Execution, over: AbortSignal): Promise<Started> {
  const { clock } = worker.service;
  const { order } = exec;
  const launched = launch(worker, exec);
  const ended = launched.exited.catch(() => undefined);
  const tooLong = clock.timeout(START_HOLD_MS);
  await withJoinedSignal([over, tooLong], (held) =>
    Promise.race([launched.started, ended, aborted(held)]),
  );
  return {
    launched,
    hangs: over.aborted ? undefined : tooLong.aborted,
    late: order.timeoutMs > 0 ? clock.timeout(order.timeoutMs) : undefined,
  };
}

function whyCut({ order, record }: Execution, late: boolean): Failure {
  const command = `command ${JSON.stringify(order.cmd[0])} in container ${record.id}`;
  return late
    ? new Failure('timeout', `${command} was killed after ${order.timeoutMs} ms`)
    : new Failure('unavailable', `${command} was killed: its worker is being stopped`);
}

async function drain(worker: Worker, launched: Launched, gone: AbortSignal): Promise<void> {
  await Promise.all(launched.outputs().map((output) => drainOne(worker, output, gone)));
  launched.finish();
}

/**
 * Waits for the end of an output after that of its command. What a background child of the command
 * holds open is given up after a while, but not what a slow dialler has yet to take.
 */
async function drainOne(worker: Worker, output: Pump, gone: AbortSignal): Promise<void> {
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
