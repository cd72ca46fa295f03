// Killing a command that was executed in a container, with all that it started.

import { readFileSync } from 'node:fs';
import { rm } from 'node:fs/promises';
import { isFailure } from '@cribus/contracts/failure.ts';
import type { ContainerRecord } from '@cribus/contracts/gen/node/v1/records.ts';
import { isErrno } from '@cribus/host/errno.ts';
import { listDirectory } from '@cribus/host/files.ts';
import { listMarked } from '@cribus/host/process-marks.ts';
import { identify, isAlive, signalProcess } from '@cribus/host/processes.ts';
import type { Launched } from './exec-launch.ts';
import { EXEC_PREFIX, type ExecFiles, execFiles, readPid } from './exec-order.ts';
import { descendants } from './process-tree.ts';
import { placesOf, type Worker } from './worker.ts';

/** For an engine's kill and for the reaping of what was killed. */
const KILL_BUDGET_MS = 10_000;
/** For an engine to get a command started that is to be killed at once, and for its own end after it. */
const ENGINE_BUDGET_MS = 1_000;
const LOOK_INTERVAL_MS = 10;
/** A tree that still grows after so many looks is killed as far as it is known. */
const LOOKS_MAX = 50;

interface Target {
  readonly record: ContainerRecord;
  readonly files: ExecFiles;
  readonly launched: Launched;
}

/** Kills the command with all that it started, then the engine's own process, whatever the engine says. */
export async function killExec(worker: Worker, target: Target): Promise<void> {
  const { clock } = worker.service;
  const { record, files, launched } = target;
  const signal = clock.timeout(KILL_BUDGET_MS);
  const exited = launched.exited.then(
    () => true,
    () => true,
  );
  const pid = await startedPid(worker, target, exited);
  if (pid > 0 && worker.driver.signalBy === 'engine') {
    await killByEngine(worker, record, { pid, signal });
  } else if (pid > 0) await killMarked(worker, target, { pid, signal });
  // The engine reaps the command and ends; killed before, it would leave a zombie in the container.
  const over = await Promise.race([exited, aborted(clock.timeout(ENGINE_BUDGET_MS))]);
  if (over !== undefined) return;
  worker.service.log.warn({ container: record.id, files: files.directory }, 'an exec hangs');
  launched.engine.kill('SIGKILL', 'group');
  await Promise.race([exited, aborted(clock.timeout(ENGINE_BUDGET_MS))]);
}

/** An engine that hangs, as its Sentry does, kills nothing: the command's own engine has to go then. */
async function killByEngine(
  worker: Worker,
  record: ContainerRecord,
  { pid, signal }: { readonly pid: number; readonly signal: AbortSignal },
): Promise<void> {
  try {
    await worker.engine.killProcessTree(record.id, { pid, name: 'KILL', signal });
  } catch (error) {
    if (!signal.aborted && !isFailure(error)) throw error;
    const said = { container: record.id, pid, error: String(error) };
    worker.service.log.warn(said, 'the engine killed no command');
  }
}

/** The pid to kill, awaited if the engine is still about to start it; zero when it never did. */
async function startedPid(
  worker: Worker,
  { files, launched }: Target,
  exited: Promise<boolean>,
): Promise<number> {
  const { clock } = worker.service;
  const file = worker.driver.signalBy === 'engine' ? files.innerPid : files.pid;
  const late = clock.timeout(ENGINE_BUDGET_MS);
  let over = false;
  void Promise.race([exited, launched.engine.exited]).then(() => {
    over = true;
  });
  while (!over && !late.aborted) {
    const pid = await readPid(file);
    if (pid > 0) return pid;
    await clock.sleep(LOOK_INTERVAL_MS);
  }
  return await readPid(file);
}

/**
 * Stops all before it kills any: what is stopped starts nothing more. Children that left the tree are
 * found by their mark. Nothing is touched outside of the container's cgroup, which the command has
 * entered by now: workers don't know of each other's marks, and pids are used again. Returns once none
 * is left, or when the signal aborts.
 */
async function killMarked(
  worker: Worker,
  { record, launched }: Target,
  { pid, signal }: { readonly pid: number; readonly signal: AbortSignal },
): Promise<void> {
  // Once it is gone and reaped its number may be anybody's.
  const command = identify(pid);
  const living = () => {
    const isThere = command !== undefined && isAlive(command);
    const below = isThere ? descendants(pid).flatMap((each) => identify(each) ?? []) : [];
    const known = [...listMarked(launched.mark), ...(isThere ? [command] : []), ...below];
    const inContainer = known.filter((each) => isInContainer(each.pid, record));
    const found = new Map(inContainer.map((each) => [each.pid, each]));
    // The engine ends by itself then, and reaps what is its own.
    found.delete(launched.engine.pid);
    return found;
  };
  const stopped = new Set<number>();
  for (let look = 0; look < LOOKS_MAX; look += 1) {
    const fresh = [...living().values()].filter((each) => !stopped.has(each.pid));
    if (fresh.length === 0) break;
    for (const each of fresh) {
      stopped.add(each.pid);
      signalProcess(each, 'SIGSTOP');
    }
  }
  for (let left = living(); left.size > 0 && !signal.aborted; left = living()) {
    for (const each of left.values()) signalProcess(each, 'SIGKILL');
    await worker.service.clock.sleep(LOOK_INTERVAL_MS);
  }
}

/**
 * Kills what was executed in a container by a worker that is gone, with its children as far as they are
 * below it, and takes its files away: nobody has its streams any more.
 */
export async function endStaleExecs(worker: Worker, record: ContainerRecord): Promise<void> {
  const { bundle } = placesOf(worker, record.id);
  const names = (await listDirectory(bundle)).filter((name) => name.startsWith(EXEC_PREFIX));
  const signal = worker.service.clock.timeout(KILL_BUDGET_MS);
  for (const name of names) {
    const files = execFiles(bundle, name);
    const pid = await readPid(worker.driver.signalBy === 'engine' ? files.innerPid : files.pid);
    if (pid > 0 && worker.driver.signalBy === 'engine') {
      await worker.engine.killProcessTree(record.id, { pid, name: 'KILL', signal });
    } else if (pid > 0 && isInContainer(pid, record)) {
      const tree = [pid, ...descendants(pid)].flatMap((each) => identify(each) ?? []);
      for (const each of tree) signalProcess(each, 'SIGKILL');
    }
    await rm(files.directory, { recursive: true, force: true });
  }
}

/** By the cgroup of the process, whose path holds the container's id; false for one that is gone. */
function isInContainer(pid: number, record: ContainerRecord): boolean {
  try {
    return readFileSync(`/proc/${pid}/cgroup`, 'utf8').includes(record.id);
  } catch (error) {
    if (isErrno(error, 'ENOENT', 'ESRCH')) return false;
    throw error;
  }
}

/** Resolves when the signal aborts. */
export function aborted(signal: AbortSignal): Promise<undefined> {
  return new Promise((resolve) => {
    if (signal.aborted) resolve(undefined);
    else signal.addEventListener('abort', () => resolve(undefined), { once: true });
  });
}
