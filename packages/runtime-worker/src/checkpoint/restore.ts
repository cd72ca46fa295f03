// Starting a container that was made from a checkpoint: conmon has the engine restore the process,
// which runs at once.

import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { Failure, isFailure } from '@cribus/contracts/failure.ts';
import { ContainerPhase, type ContainerRecord } from '@cribus/contracts/gen/node/v1/records.ts';
import { readFileIfExists } from '@cribus/host/files.ts';
import { type CreatedProcess, createByMonitor } from '../create-by-monitor.ts';
import { EXIT_CODE_KILLED, EXIT_CODE_UNKNOWN } from '../exits.ts';
import { killOrphan } from '../orphans.ts';
import { placesOf, type Worker } from '../worker.ts';
import { reasonIn } from './criu.ts';
import { forgetOrigin, requireInventory } from './origin.ts';
import { refuseCheckpoints } from './refuse.ts';

const REPAIR_BUDGET_MS = 60_000;

/** It has no process yet, and nothing watches it. */
export function awaitsRestore(record: ContainerRecord): boolean {
  return record.restore && record.phase === ContainerPhase.CREATED && record.process === undefined;
}

/** Raises wrong_state with criu's words where the restore fails; the container stays CREATED. */
export async function restoreProcess(
  worker: Worker,
  record: ContainerRecord,
  signal: AbortSignal,
): Promise<CreatedProcess> {
  const { id } = record;
  refuseCheckpoints(worker, `container ${id} can't be restored`);
  const images = await requireInventory(worker, id);
  try {
    const created = await createByMonitor(worker, record, {
      terminal: record.config?.tty === true,
      engineArgs: [],
      restoreFrom: images,
      signal,
    });
    worker.service.background(`restored ${id}`, forgetOrigin(worker, id));
    return created;
  } catch (error) {
    await worker.engine.remove(id, worker.service.clock.timeout(REPAIR_BUDGET_MS));
    if (!isFailure(error)) throw error;
    const log = await readFileIfExists(join(placesOf(worker, id).bundle, 'restore.log'));
    const criu = log === undefined || log.length === 0 ? '' : `; criu: ${reasonIn(log)}`;
    throw new Failure('wrong_state', `${error.message}${criu}`, {
      stage: 'engine restore',
      cause: error,
    });
  }
}

/** At a start: whether the restore was never begun, was cut short, or a reboot took the bundle. */
export async function adoptUnrestored(worker: Worker, { id }: ContainerRecord): Promise<void> {
  const signal = worker.service.clock.timeout(REPAIR_BUDGET_MS);
  if (!existsSync(join(placesOf(worker, id).bundle, 'config.json'))) {
    const message = 'the host was restarted before the container was restored';
    await worker.exits.record(id, { exitCode: EXIT_CODE_UNKNOWN, reason: 'Unknown', message });
    return;
  }
  if ((await worker.engine.state(id, signal)) === undefined) return;
  await killOrphan(worker, id, signal);
  const message = 'its worker ended while the container was restored';
  await worker.exits.record(id, { exitCode: EXIT_CODE_KILLED, reason: 'Error', message });
}
