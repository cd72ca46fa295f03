// Starting a container that was made from a checkpoint: conmon has the engine restore the process,
// which runs at once.

import { existsSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { Failure, isFailure } from '@cribus/contracts/failure.ts';
import { ContainerPhase, type ContainerRecord } from '@cribus/contracts/gen/node/v1/records.ts';
import { readFileIfExists, writeFileAtomic } from '@cribus/host/files.ts';
import type { Spec } from '@cribus/oci/spec.ts';
import { type CreatedProcess, createByMonitor } from '../create-by-monitor.ts';
import { EXIT_CODE_KILLED, EXIT_CODE_UNKNOWN } from '../exits.ts';
import { killOrphan } from '../orphans.ts';
import { placesOf, type Worker } from '../worker.ts';
import { reasonIn } from './criu.ts';
import { CRIU_OPTIONS_ANNOTATION } from './format.ts';
import { forgetOrigin, requireInventory } from './origin.ts';
import { refuseCheckpoints } from './refuse.ts';

const REPAIR_BUDGET_MS = 60_000;
/** An operator's options for criu under runc. */
const RUNC_OPTIONS = '/etc/criu/runc.conf';

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
    await tellCgroup(worker, record);
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

/**
 * Has criu put the processes into this container's own cgroup. By itself it puts them where they were
 * when they were dumped: into another container's cgroup, or one that nobody looks after. runc says
 * where only on cgroup v1, and its mode `ignore` doesn't reach criu (opencontainers/runc#4178); but it
 * names a file of options for criu by an annotation, in the place of its own one (runc-checkpoint.8).
 */
async function tellCgroup(worker: Worker, record: ContainerRecord): Promise<void> {
  if (worker.cgroups.version !== 'v2') return;
  const { bundle } = placesOf(worker, record.id);
  const options = join(bundle, 'criu.conf');
  const usual = (await readFileIfExists(RUNC_OPTIONS))?.toString('utf8') ?? '';
  await writeFileAtomic(options, `${usual}\ncgroup-root ${record.cgroupPath}\n`, { mode: 0o600 });
  const file = join(bundle, 'config.json');
  const spec = JSON.parse(await readFile(file, 'utf8')) as Pick<Spec, 'annotations'>;
  const annotations = { ...spec.annotations, [CRIU_OPTIONS_ANNOTATION]: options };
  await writeFileAtomic(file, JSON.stringify({ ...spec, annotations }));
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
