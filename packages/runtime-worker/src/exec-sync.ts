// ExecSync: the verb only prepares a session; the command starts when the session is dialled, so at
// most once. Output flows as frames at the pace of the reader; the maximum is the gateway's.

import { randomUUID } from 'node:crypto';
import { mkdir, readFile, rm } from 'node:fs/promises';
import type { Socket } from 'node:net';
import { join } from 'node:path';
import type { VerbHandler } from '@cribus/chassis/owner.ts';
import { Failure } from '@cribus/contracts/failure.ts';
import { ContainerPhase, type ContainerRecord } from '@cribus/contracts/gen/node/v1/records.ts';
import type { ExecSyncRequest } from '@cribus/contracts/gen/node/v1/verbs.ts';
import {
  encodeFrame,
  encodeJsonFrame,
  FRAME,
  FRAME_PAYLOAD_BYTES_MAX,
  type FrameType,
} from '@cribus/contracts/session.ts';
import { readFileIfExists, writeFileAtomic } from '@cribus/host/files.ts';
import { identify, signalProcess } from '@cribus/host/processes.ts';
import { type Child, spawn } from '@cribus/host/spawn.ts';
import type { Spec, SpecProcess } from '@cribus/oci/spec.ts';
import { phaseName } from './phases.ts';
import { descendants } from './process-tree.ts';
import { placesOf, requireContainer, type Worker } from './worker.ts';

/** How long output is awaited that a background child of the command still holds open. */
const DRAIN_BUDGET_MS = 2_000;
/** For an engine's kill and for the reaping of what was killed. */
const KILL_BUDGET_MS = 10_000;
/** For the engine's own end after that of its command. */
const REAP_BUDGET_MS = 1_000;
const ARGS_MAX = 8192;

/** wrong_state unless the container runs. */
export function execSync(worker: Worker): VerbHandler<'exec-sync'> {
  return async (request) => {
    if (request.cmd.length === 0 || request.cmd.length > ARGS_MAX) {
      throw new Failure(
        'invalid_argument',
        `exec in ${request.containerId}: no command, or too long`,
      );
    }
    requireRunning(worker, request.containerId);
    return worker.sessions.prepare((socket, gone) => runCommand(worker, { request, socket, gone }));
  };
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

interface ExecSession {
  readonly request: ExecSyncRequest;
  readonly socket: Socket;
  readonly gone: AbortSignal;
}

/** The process of an exec: the container's own, with other arguments and no terminal. */
export function execProcess(spec: Pick<Spec, 'process'>, args: readonly string[]): SpecProcess {
  return { ...spec.process, args: [...args], terminal: false };
}

async function runCommand(worker: Worker, session: ExecSession): Promise<void> {
  const record = requireRunning(worker, session.request.containerId);
  const places = placesOf(worker, record.id);
  const directory = join(places.bundle, `exec-${randomUUID()}`);
  await mkdir(directory, { mode: 0o700 });
  try {
    const spec = JSON.parse(await readFile(join(places.bundle, 'config.json'), 'utf8')) as Spec;
    const processFile = join(directory, 'process.json');
    await writeFileAtomic(processFile, JSON.stringify(execProcess(spec, session.request.cmd)));
    const pidFile = join(directory, 'pid');
    const innerPidFile = join(directory, 'inner-pid');
    const inner = worker.driver.signalBy === 'engine' ? ['--internal-pid-file', innerPidFile] : [];
    const child = spawn({
      command: worker.engine.command,
      args: worker.engine.argv('exec', [
        ...['--process', processFile, '--pid-file', pidFile, ...inner],
        record.id,
      ]),
      stdout: 'pipe',
      stderr: 'pipe',
    });
    await follow(worker, { ...session, record, child, pidFile, innerPidFile });
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
}

interface Following extends ExecSession {
  readonly record: ContainerRecord;
  readonly child: Child;
  readonly pidFile: string;
  readonly innerPidFile: string;
}

async function follow(worker: Worker, exec: Following): Promise<void> {
  const { clock } = worker.service;
  const { request, child, socket } = exec;
  const timeoutMs = Number(request.timeoutS) * 1000;
  const limits = [exec.gone, worker.service.stopping];
  const late = timeoutMs > 0 ? clock.timeout(timeoutMs) : undefined;
  const signal = AbortSignal.any(late === undefined ? limits : [...limits, late]);
  const said = { stderr: '' };
  const streams = Promise.all([
    pump(child.stdout, socket, { type: FRAME.stdout, onData: () => undefined }),
    pump(child.stderr, socket, {
      type: FRAME.stderr,
      onData: (chunk) => {
        if (said.stderr.length < 4096) said.stderr += chunk.toString('utf8');
      },
    }),
  ]);
  const ended = await Promise.race([child.exited, aborted(signal)]);
  if (ended === undefined) {
    await killTree(worker, exec);
    child.stdout?.destroy();
    child.stderr?.destroy();
    if (late?.aborted !== true || exec.gone.aborted) return;
    throw new Failure(
      'timeout',
      `command ${JSON.stringify(request.cmd[0])} in container ${exec.record.id} was killed after ${timeoutMs} ms`,
    );
  }
  await Promise.race([streams, clock.sleep(DRAIN_BUDGET_MS, exec.gone).catch(() => undefined)]);
  child.stdout?.destroy();
  child.stderr?.destroy();
  const exitCode = ended.exitCode ?? 128 + (ended.signal ?? 0);
  if (exitCode !== 0 && (await readFileIfExists(exec.pidFile)) === undefined) {
    // The engine writes the pid file only once the command runs: it never did.
    const output = said.stderr.trim();
    throw worker.driver.classify('exec', { exitCode, output });
  }
  socket.write(encodeJsonFrame(FRAME.exit, { exitCode }));
}

function aborted(signal: AbortSignal): Promise<undefined> {
  return new Promise((resolve) => {
    if (signal.aborted) resolve(undefined);
    else signal.addEventListener('abort', () => resolve(undefined), { once: true });
  });
}

/** Sends a stream as frames; while the socket is full the stream waits. */
function pump(
  stream: Socket | undefined,
  socket: Socket,
  options: { readonly type: FrameType; readonly onData: (chunk: Buffer) => void },
): Promise<void> {
  return new Promise((resolve) => {
    if (stream === undefined) return resolve();
    stream.on('data', (chunk: Buffer) => {
      options.onData(chunk);
      let free = true;
      for (let at = 0; at < chunk.length; at += FRAME_PAYLOAD_BYTES_MAX) {
        const piece = chunk.subarray(at, at + FRAME_PAYLOAD_BYTES_MAX);
        if (!socket.destroyed) free = socket.write(encodeFrame(options.type, piece));
      }
      if (free || socket.destroyed) return;
      stream.pause();
      socket.once('drain', () => stream.resume());
    });
    stream.on('error', () => resolve());
    stream.on('close', () => resolve());
    stream.on('end', () => resolve());
  });
}

/** Kills the command with all that it started, then the engine's own process. */
async function killTree(worker: Worker, exec: Following): Promise<void> {
  const signal = worker.service.clock.timeout(KILL_BUDGET_MS);
  if (worker.driver.signalBy === 'engine') {
    const pid = Number((await readFileIfExists(exec.innerPidFile))?.toString('utf8').trim() ?? 0);
    if (pid > 0) await worker.engine.killProcessTree(exec.record.id, { pid, name: 'KILL', signal });
  } else {
    const pid = Number((await readFileIfExists(exec.pidFile))?.toString('utf8').trim() ?? 0);
    // Collected before the first dies: orphans move to another parent.
    const tree = pid > 0 ? [pid, ...descendants(pid)] : [];
    for (const each of tree.map(identify)) if (each !== undefined) signalProcess(each, 'SIGKILL');
  }
  // The engine reaps the command and ends; killed before, it would leave a zombie in the container.
  const { clock } = worker.service;
  const over = await Promise.race([exec.child.exited, aborted(clock.timeout(REAP_BUDGET_MS))]);
  if (over !== undefined) return;
  exec.child.kill('SIGKILL', 'group');
  await Promise.race([exec.child.exited, aborted(signal)]);
}
