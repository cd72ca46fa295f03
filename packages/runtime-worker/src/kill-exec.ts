// Killing a command that was executed in a container, with all that it started.

import type { ContainerRecord } from '@cribus/contracts/gen/node/v1/records.ts';
import { readFileIfExists } from '@cribus/host/files.ts';
import { identify, signalProcess } from '@cribus/host/processes.ts';
import type { Child } from '@cribus/host/spawn.ts';
import type { ExecFiles } from './exec-process.ts';
import { descendants } from './process-tree.ts';
import type { Worker } from './worker.ts';

/** For an engine's kill and for the reaping of what was killed. */
const KILL_BUDGET_MS = 10_000;
/** For the engine's own end after that of its command. */
const REAP_BUDGET_MS = 1_000;

interface Target {
  readonly record: ContainerRecord;
  readonly files: ExecFiles;
  readonly child: Child;
}

/** Kills the command with all that it started, then the engine's own process. */
export async function killExec(worker: Worker, { record, files, child }: Target): Promise<void> {
  const signal = worker.service.clock.timeout(KILL_BUDGET_MS);
  if (worker.driver.signalBy === 'engine') {
    const pid = await readPid(files.innerPid);
    if (pid > 0) await worker.engine.killProcessTree(record.id, { pid, name: 'KILL', signal });
  } else {
    const pid = await readPid(files.pid);
    // Collected before the first dies: orphans move to another parent.
    const tree = pid > 0 ? [pid, ...descendants(pid)] : [];
    for (const each of tree.map(identify)) if (each !== undefined) signalProcess(each, 'SIGKILL');
  }
  // The engine reaps the command and ends; killed before, it would leave a zombie in the container.
  const { clock } = worker.service;
  const over = await Promise.race([child.exited, ended(clock.timeout(REAP_BUDGET_MS))]);
  if (over !== undefined) return;
  child.kill('SIGKILL', 'group');
  await Promise.race([child.exited, ended(signal)]);
}

async function readPid(file: string): Promise<number> {
  return Number((await readFileIfExists(file))?.toString('utf8').trim() ?? 0);
}

function ended(signal: AbortSignal): Promise<undefined> {
  return new Promise((resolve) => {
    if (signal.aborted) resolve(undefined);
    else signal.addEventListener('abort', () => resolve(undefined), { once: true });
  });
}
