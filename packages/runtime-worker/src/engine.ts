// "An OCI command line": the one way in which a worker drives its engine. Building arguments and
// reading answers is pure; `createEngine` runs them, timed and bounded.

import { rm } from 'node:fs/promises';
import type { Metrics } from '@cribus/chassis/metrics.ts';
import { Failure, isFailure } from '@cribus/contracts/failure.ts';
import type { Clock } from '@cribus/host/clock.ts';
import { isErrno } from '@cribus/host/errno.ts';
import { readFileIfExists } from '@cribus/host/files.ts';
import { withJoinedSignal } from '@cribus/host/joined-signals.ts';
import { run } from '@cribus/host/spawn.ts';
import type { SpecResources } from '@cribus/oci/spec.ts';
import { absentEngine } from './absent-engine.ts';
import type { EngineOperation, RuntimeDriver } from './driver.ts';
import { below } from './process-tree.ts';

/** What `state` says (runtime-spec, runtime.md); undefined when the engine does not know the id. */
export interface EngineState {
  readonly status: 'creating' | 'created' | 'running' | 'stopped' | 'paused';
  readonly pid: number;
}

/** One method per operation; `create` is the monitor's, `exec` the session's, by `argv`. */
export interface Engine {
  readonly command: string;
  /** The whole argument list of an operation. */
  argv(operation: EngineOperation, args: readonly string[]): string[];
  /** With `stdio`, the container gets these descriptors (child number to ours). */
  start(id: string, signal: AbortSignal, stdio?: Readonly<Record<number, number>>): Promise<void>;
  /** True when the signal was delivered; false when the container is gone or not running. */
  kill(id: string, signalName: string, signal: AbortSignal): Promise<boolean>;
  /**
   * Signals a process inside a container and all below it, by its pid in there (runsc); success when
   * it is gone.
   */
  killProcessTree(
    id: string,
    target: { readonly pid: number; readonly name: string; readonly signal: AbortSignal },
  ): Promise<void>;
  /** Sets limits, and tells systemd of them. */
  update(id: string, limits: Omit<SpecResources, 'devices'>, signal: AbortSignal): Promise<void>;
  /** Frees the engine's state and the cgroup of a dead container; success when it is unknown. */
  remove(id: string, signal: AbortSignal): Promise<void>;
  state(id: string, signal: AbortSignal): Promise<EngineState | undefined>;
  /** Connects a unix socket of ours with a port of a sandbox; ends once it is connected (runsc). */
  portForward(
    sandboxId: string,
    to: { readonly port: number; readonly socketPath: string; readonly signal: AbortSignal },
  ): Promise<void>;
  /** The exit code, once it has exited; undefined when nobody knows it any more. */
  wait(id: string, signal: AbortSignal): Promise<number | undefined>;
  /** What a running container uses, as the engine counts it; undefined when it is gone. */
  stats(id: string, signal: AbortSignal): Promise<EngineStats | undefined>;
}

/** From `events --stats`. */
export interface EngineStats {
  readonly cpuNs: bigint;
  readonly memoryBytes: bigint;
  readonly processes: bigint;
}

/** An engine command that takes longer than this hangs; `wait` is not bounded by it. */
const COMMAND_BUDGET_MS = 60_000;
/** A tree that still grows after so many looks is signalled as far as it is known. */
const TREE_LOOKS_MAX = 20;

/** Arguments in front of every operation. */
export function globalArgv(
  driver: Pick<RuntimeDriver, 'globalArgs' | 'logPrefix'>,
  options: { readonly root: string; readonly log: string },
): string[] {
  return [
    '--root',
    options.root,
    '--log',
    `${driver.logPrefix}${options.log}`,
    ...driver.globalArgs,
  ];
}

/** Reads the answer of `state`. */
export function parseState(stdout: string): EngineState {
  const { status, pid } = JSON.parse(stdout) as { status: EngineState['status']; pid?: number };
  return { status, pid: pid ?? 0 };
}

/** Reads `runsc wait`'s answer, as `{"id":"…","exitStatus":7}`. */
export function parseWait(stdout: string): number | undefined {
  const found = /"exitStatus"\s*:\s*(\d+)/.exec(stdout);
  if (found?.[1] === undefined) return undefined;
  const status = Number(found[1]);
  // Older releases print the wait(2) status, newer ones the code.
  return status > 255 ? (status >> 8) & 0xff : status;
}

/** Reads the one event of `events --stats`; undefined for any other text. */
export function parseStats(stdout: string): EngineStats | undefined {
  // Counters of nanoseconds outgrow what a JSON number keeps: they are read as text.
  const number = (pattern: RegExp) => {
    const found = pattern.exec(stdout)?.[1];
    return found === undefined ? undefined : BigInt(found);
  };
  const memoryBytes = number(/"memory":\{(?:[^{}]*,)?"usage":\{(?:[^{}]*,)?"usage":(\d+)/);
  if (!stdout.includes('"cpu":{"usage":{') || memoryBytes === undefined) return undefined;
  // The Sentry counts whole ticks, and runsc leaves out what is zero.
  const cpuNs = number(/"cpu":\{"usage":\{(?:[^{}]*,)?"total":(\d+)/) ?? 0n;
  return { cpuNs, memoryBytes, processes: number(/"pids":\{"current":(\d+)/) ?? 0n };
}

/** Reads the table of `runsc ps` (its JSON has no parents): the parent of each process by its pid. */
export function parseParents(table: string): ReadonlyMap<number, number> {
  const [heading = '', ...rows] = table.trim().split('\n');
  const columns = heading.trim().split(/\s+/);
  const [pid, parent] = [columns.indexOf('PID'), columns.indexOf('PPID')];
  if (pid < 0 || parent < 0) return new Map();
  return new Map(
    rows.map((row) => {
      const fields = row.trim().split(/\s+/);
      return [Number(fields[pid]), Number(fields[parent])];
    }),
  );
}

export interface EngineOptions {
  readonly driver: RuntimeDriver;
  /** The engine's --root. */
  readonly root: string;
  /** The engine's --log. */
  readonly log: string;
  /** The --log of one container's start; in its bundle, so that it goes with it. */
  readonly startLog: (id: string) => string;
  readonly clock: Clock;
  readonly metrics: Pick<Metrics, 'timed'>;
}

/**
 * Makes the engine of a driver. Failures are the driver's `classify`; unavailable where the engine
 * can't be started.
 */
export function createEngine(options: EngineOptions): Engine {
  const { driver } = options;
  if (driver.unavailable !== undefined) {
    return absentEngine({ root: options.root, command: driver.command, why: driver.unavailable });
  }
  const front = globalArgv(driver, options);
  const argv: Engine['argv'] = (operation, args) => [...front, operation, ...args];

  const command = (
    operation: EngineOperation,
    args: readonly string[],
    signal: AbortSignal,
    stdin?: Uint8Array,
  ) =>
    options.metrics.timed('engine', `${driver.family} ${operation}`, async () => {
      const limit = operation === 'wait' ? [] : [options.clock.timeout(COMMAND_BUDGET_MS)];
      const result = await withJoinedSignal([signal, ...limit], (either) =>
        run({
          command: driver.command,
          args: argv(operation, args),
          ...(stdin === undefined ? {} : { stdin }),
          signal: either,
        }),
      ).catch((error: unknown) => {
        throw notStarted(error, operation);
      });
      if (result.exitCode === 0) return result.stdout.toString('utf8');
      const output = result.stderr.toString('utf8').trim() || result.stdout.toString('utf8').trim();
      throw driver.classify(operation, { exitCode: result.exitCode, output });
    });

  return {
    command: driver.command,
    argv,
    start: async (id, signal, stdio) => {
      if (stdio === undefined) await command('start', [id], signal);
      else await startWith(options, { id, stdio, front, signal });
    },
    kill: (id, signalName, signal) =>
      command('kill', [id, signalName], signal).then(() => true, orFalseWhenGone),
    killProcessTree: async (id, { pid, name, signal }) => {
      // All are stopped before any dies: what is stopped starts nothing more, and orphans would move
      // to another parent, where nobody finds them.
      const tell = (each: number, what: string) =>
        command('kill', ['--pid', String(each), id, what], signal).catch(orFalseWhenGone);
      const found = new Set<number>();
      for (let look = 0; look < TREE_LOOKS_MAX; look += 1) {
        const table = await command('ps', [id], signal).catch(() => '');
        const fresh = [pid, ...below(pid, parseParents(table))].filter((each) => !found.has(each));
        if (fresh.length === 0) break;
        for (const each of fresh) {
          found.add(each);
          await tell(each, 'STOP');
        }
      }
      for (const each of found) await tell(each, name);
    },
    update: async (id, limits, signal) => {
      // With cgroup v2 a limit below what is in use would kill instead of being refused.
      const { memory } = limits;
      const checked =
        memory === undefined ? {} : { memory: { ...memory, checkBeforeUpdate: true } };
      const text = JSON.stringify({ ...limits, ...checked });
      await command('update', ['--resources', '-', id], signal, Buffer.from(text));
    },
    remove: (id, signal) =>
      command('delete', [id], signal).then(
        () => undefined,
        (error: unknown) => {
          if (!isFailure(error, 'not_found')) throw error;
        },
      ),
    state: (id, signal) =>
      command('state', [id], signal).then(parseState, (error: unknown) => {
        if (isFailure(error, 'not_found')) return undefined;
        throw error;
      }),
    stats: (id, signal) =>
      command('events', ['--stats', id], signal).then(parseStats, (error: unknown) => {
        if (isFailure(error, 'not_found', 'wrong_state')) return undefined;
        throw error;
      }),
    portForward: async (sandboxId, { port, socketPath, signal }) => {
      await command('port-forward', ['--stream', socketPath, sandboxId, String(port)], signal);
    },
    wait: (id, signal) =>
      command('wait', [id], signal).then(parseWait, (error: unknown) => {
        if (isFailure(error, 'not_found')) return undefined;
        throw error;
      }),
  };
}

/** An engine that was taken away while we run is no bug of ours. */
function notStarted(error: unknown, operation: EngineOperation): unknown {
  if (!(error instanceof Error) || !isErrno(error, 'ENOENT', 'EACCES')) return error;
  const details = { stage: `engine ${operation}`, cause: error };
  return new Failure('unavailable', error.message, details);
}

function orFalseWhenGone(error: unknown): false {
  if (isFailure(error, 'not_found', 'wrong_state')) return false;
  throw error;
}

/** What the engine says of a failure is in its log: its stderr is the container's. */
async function startWith(
  options: EngineOptions,
  start: {
    readonly id: string;
    readonly stdio: Readonly<Record<number, number>>;
    readonly front: readonly string[];
    readonly signal: AbortSignal;
  },
): Promise<void> {
  const { driver } = options;
  const log = options.startLog(start.id);
  try {
    const limits = [start.signal, options.clock.timeout(COMMAND_BUDGET_MS)];
    const { exitCode } = await options.metrics.timed('engine', `${driver.family} start`, () =>
      withJoinedSignal(limits, (signal) =>
        run({
          command: driver.command,
          args: [...start.front, '--log', `${driver.logPrefix}${log}`, 'start', start.id],
          stdout: 'null',
          stderr: 'null',
          fds: start.stdio,
          signal,
        }),
      ),
    );
    if (exitCode === 0) return;
    const output = (await readFileIfExists(log))?.toString('utf8') ?? '';
    throw driver.classify('start', { exitCode, output });
  } finally {
    await rm(log, { force: true });
  }
}
