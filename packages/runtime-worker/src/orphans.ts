// Ending processes that no record knows: of a container whose making or undoing was cut short.

import { containerPaths } from '@cribus/contracts/paths.ts';
import { subjectToken } from '@cribus/contracts/subjects.ts';
import { readFileIfExists } from '@cribus/host/files.ts';
import { identify, signalProcess, waitForExit } from '@cribus/host/processes.ts';
import type { Worker } from './worker.ts';

/**
 * Kills a container's process by the engine and its monitor by its pid file; returns when the
 * monitor is gone. Raises the engine's failure, or the signal's reason.
 */
export async function killOrphan(worker: Worker, id: string, signal: AbortSignal): Promise<void> {
  const places = containerPaths(worker.service.config.roots, subjectToken(worker.handler), id);
  await worker.engine.kill(id, '9', signal);
  const text = (await readFileIfExists(places.monitorPidFile))?.toString('utf8').trim() ?? '';
  const monitor = /^\d+$/.test(text) ? identify(Number(text)) : undefined;
  if (monitor === undefined || !(await isOurs(monitor.pid, places.bundle))) return;
  signalProcess(monitor, 'SIGKILL');
  await waitForExit(monitor, signal);
}

/** The pid may be another's by now: conmon's command line names the bundle. */
async function isOurs(pid: number, bundle: string): Promise<boolean> {
  const line = (await readFileIfExists(`/proc/${pid}/cmdline`))?.toString('utf8') ?? '';
  return line.split('\0').includes(bundle);
}
