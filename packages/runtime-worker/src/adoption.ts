// What a worker does at its start, before it serves: load the records, compare them with the host,
// adopt what lives, finish or undo what a crash left half done, sweep what has no record.

import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { ContainerPhase, type ContainerRecord } from '@cribus/contracts/gen/node/v1/records.ts';
import { containerPaths } from '@cribus/contracts/paths.ts';
import { IMAGE_SERVICE, subjectToken } from '@cribus/contracts/subjects.ts';
import { listDirectory, removeTree } from '@cribus/host/files.ts';
import { unmountTree } from '@cribus/host/mounts.ts';
import { bootId } from '@cribus/host/processes.ts';
import { adoptUnrestored, awaitsRestore } from './checkpoint/restore.ts';
import { abandonCheckpoint } from './checkpoint/write-checkpoint.ts';
import { EXIT_CODE_UNKNOWN } from './exits.ts';
import { endStaleExecs } from './kill-exec.ts';
import { killOrphan } from './orphans.ts';
import { isLive, keepAsUnknown } from './phases.ts';
import { takeAway } from './remove-container.ts';
import { tellEndOfTerminal } from './terminal-end.ts';
import type { Worker } from './worker.ts';

const REPAIR_BUDGET_MS = 60_000;

/** Repairs every record; one whose repair fails stays, listed, until it is removed. */
export async function adoptContainers(worker: Worker): Promise<void> {
  const { log } = worker.service;
  const { corrupt } = await worker.store.load();
  for (const id of corrupt) log.error({ container: id }, 'a record could not be read');
  await Promise.all(
    worker.store.all().map((record) =>
      adoptOne(worker, record).catch(async (error: unknown) => {
        log.error({ container: record.id, error: String(error) }, 'a record could not be repaired');
        await keepAsUnknown(worker, record.id, { why: 'it was half made', error });
      }),
    ),
  );
  await sweep(worker, new Set(corrupt));
}

async function adoptOne(worker: Worker, record: ContainerRecord): Promise<void> {
  switch (record.phase) {
    case ContainerPhase.CREATING:
    case ContainerPhase.REMOVING:
      return await finishRemoval(worker, record);
    case ContainerPhase.EXITED:
    case ContainerPhase.UNKNOWN:
      return await abandonCheckpoint(worker, record.id);
    default:
      return await adoptLive(worker, record);
  }
}

async function adoptLive(worker: Worker, record: ContainerRecord): Promise<void> {
  if (awaitsRestore(record)) return await adoptUnrestored(worker, record);
  await abandonCheckpoint(worker, record.id);
  const exitFile = existsSync(join(worker.paths.exits, record.id));
  if (record.process?.bootId !== bootId() && !exitFile) {
    await worker.exits.record(record.id, {
      exitCode: EXIT_CODE_UNKNOWN,
      reason: 'Unknown',
      message: 'the host was restarted while the container ran',
    });
    return;
  }
  // A create that was started but not recorded as such: the engine knows better.
  if (record.phase === ContainerPhase.CREATED && !exitFile) {
    const state = await worker.engine.state(
      record.id,
      worker.service.clock.timeout(REPAIR_BUDGET_MS),
    );
    if (state?.status === 'running') {
      await worker.changes.apply(record.id, () => ({
        phase: ContainerPhase.RUNNING,
        startedAtNs: worker.service.clock.nowNs(),
      }));
    }
  }
  const now = worker.store.get(record.id) ?? record;
  worker.exits.watch(now);
  if (now.phase === ContainerPhase.RUNNING) {
    tellEndOfTerminal(worker, now.id);
    const ending = endStaleExecs(worker, now).catch((error: unknown) => {
      const said = { container: now.id, error: String(error) };
      worker.service.log.warn(said, 'what was executed in it could not be ended');
    });
    worker.service.background(`stale execs of ${now.id}`, ending);
  }
  const settled = worker.exits.settle(record.id).catch((error: unknown) => {
    worker.service.log.error(
      { container: record.id, error: String(error) },
      'an exit could not be recorded yet',
    );
  });
  // Inside a Sentry this waits for the process itself, so serving can't wait for it.
  if (worker.driver.exitSource === 'monitor') await settled;
  else worker.service.background(`settle ${record.id}`, settled);
}

/** Nobody was answered with a CREATING record, and a REMOVING one was promised to go. */
async function finishRemoval(worker: Worker, record: ContainerRecord): Promise<void> {
  const signal = worker.service.clock.timeout(REPAIR_BUDGET_MS);
  const places = containerPaths(
    worker.service.config.roots,
    subjectToken(worker.handler),
    record.id,
  );
  await killOrphan(worker, record.id, signal);
  await takeAway(worker, record, signal);
  if (!record.sandboxProcess)
    worker.service.background(`lease ${record.id}`, endLease(worker, record.id));
  await worker.store.remove(record.id);
  await removeTree(places.directory);
}

/** A lost end is no leak: the lease also goes when an inventory lacks the container. */
async function endLease(worker: Worker, id: string): Promise<void> {
  const { bus, clock, log } = worker.service;
  try {
    await bus.ask(
      'end-lease',
      { leaseId: id },
      {
        owner: IMAGE_SERVICE,
        signal: clock.timeout(REPAIR_BUDGET_MS),
        requestId: `adopt-${id}`,
        operationId: `${id}.end-lease`,
      },
    );
  } catch (error) {
    log.warn({ container: id, error: String(error) }, 'a lease was not ended');
  }
}

/** Names in the handler's run directory that are not containers. */
const CONTAINER_ID = /^[0-9a-f]{64}$/;

async function sweep(worker: Worker, corrupt: ReadonlySet<string>): Promise<void> {
  const ids = new Set([
    ...(await listDirectory(worker.paths.run)),
    ...(await listDirectory(worker.paths.containers)),
  ]);
  for (const id of ids) {
    if (!CONTAINER_ID.test(id) || worker.store.get(id) !== undefined || corrupt.has(id)) continue;
    worker.service.log.warn({ container: id }, 'a container without a record is swept');
    const signal = worker.service.clock.timeout(REPAIR_BUDGET_MS);
    try {
      await killOrphan(worker, id, signal);
      await takeAway(worker, { id, cgroupPath: '' }, signal);
      const places = containerPaths(worker.service.config.roots, subjectToken(worker.handler), id);
      unmountTree(places.bundle);
      // Taken before the record was written.
      worker.service.background(`lease ${id}`, endLease(worker, id));
      await removeTree(places.directory);
    } catch (error) {
      worker.service.log.error({ container: id, error: String(error) }, 'the sweep failed');
    }
  }
}

/** True while a container of this worker has a process. */
export function hasLive(worker: Worker): boolean {
  return worker.store.all().some(isLive);
}
