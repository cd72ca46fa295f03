// Killing a command that was executed in a container, with all that it started.

import type { ContainerRecord } from '@cribus/contracts/gen/node/v1/records.ts';
import { identify, signalProcess } from '@cribus/host/processes.ts';
import type { Launched } from './exec-launch.ts';
import { type ExecFiles, readPid } from './exec-order.ts';
import { descendants } from './process-tree.ts';
import type { Worker } from './worker.ts';

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

/** Kills the command with all that it started, then the engine's own process. */
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
    await worker.engine.killProcessTree(record.id, { pid, name: 'KILL', signal });
  } else if (pid > 0) killTree(pid);
  // The engine reaps the command and ends; killed before, it would leave a zombie in the container.
  const over = await Promise.race([exited, aborted(clock.timeout(ENGINE_BUDGET_MS))]);
  if (over !== undefined) return;
  worker.service.log.warn({ container: record.id, files: files.directory }, 'an exec hangs');
  launched.engine.kill('SIGKILL', 'group');
  await Promise.race([exited, aborted(signal)]);
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
 * Stops from the top down before it kills: what is stopped starts nothing more, and what is not dead
 * yet keeps its children from moving to another parent.
 */
function killTree(pid: number): void {
  const stopped = new Map<number, ReturnType<typeof identify>>();
  for (let look = 0; look < LOOKS_MAX; look += 1) {
    const fresh = [pid, ...descendants(pid)].filter((each) => !stopped.has(each));
    if (fresh.length === 0) break;
    for (const each of fresh) {
      const identity = identify(each);
      stopped.set(each, identity);
      if (identity !== undefined) signalProcess(identity, 'SIGSTOP');
    }
  }
  for (const identity of stopped.values()) {
    if (identity !== undefined) signalProcess(identity, 'SIGKILL');
  }
}

/** Resolves when the signal aborts. */
export function aborted(signal: AbortSignal): Promise<undefined> {
  return new Promise((resolve) => {
    if (signal.aborted) resolve(undefined);
    else signal.addEventListener('abort', () => resolve(undefined), { once: true });
  });
}
