// RemoveContainer: kills what runs, and takes everything away that CreateContainer made.

import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import type { VerbContext, VerbHandler } from '@cribus/chassis/owner.ts';
import { ContainerPhase, type ContainerRecord } from '@cribus/contracts/gen/node/v1/records.ts';
import { IMAGE_SERVICE } from '@cribus/contracts/subjects.ts';
import { listDirectory, removeTree } from '@cribus/host/files.ts';
import { unmountTree } from '@cribus/host/mounts.ts';
import { isLive } from './phases.ts';
import { endRelays } from './relayed-stdio.ts';
import { stopOne } from './stop-container.ts';
import { withdraw } from './user-namespace.ts';
import { placesOf, type Worker, writableLayerOf } from './worker.ts';

/** An absent container is removed already. */
export function removeContainer(worker: Worker): VerbHandler<'remove-container'> {
  return async (request, context) => {
    const record = worker.store.get(request.containerId);
    if (record !== undefined && !record.sandboxProcess) await removeOne(worker, record.id, context);
    return {};
  };
}

/** Removes a container or a sandbox's process, whatever state it is in. */
export async function removeOne(worker: Worker, id: string, context: VerbContext): Promise<void> {
  const now = worker.store.get(id);
  const mayRun = now !== undefined && (isLive(now) || now.phase === ContainerPhase.UNKNOWN);
  if (mayRun) await stopOne(worker, id, { graceMs: 0, context });
  await worker.lifecycle.run(
    id,
    async () => {
      const record = await worker.changes.apply(
        id,
        (current) =>
          current.phase === ContainerPhase.REMOVING
            ? undefined
            : { phase: ContainerPhase.REMOVING },
        { changed: context.changed },
      );
      if (record === undefined) return;
      await takeAway(worker, record, context.signal);
      if (!record.sandboxProcess) {
        await context.ask(
          'end-lease',
          { leaseId: id },
          { owner: IMAGE_SERVICE, operationId: `${id}.end-lease` },
        );
      }
      // The record goes last: as long as anything may be left, a start-up finds it and finishes.
      await worker.store.remove(id, { changed: context.changed });
      worker.released.delete(id);
      await removeTree(placesOf(worker, id).directory);
    },
    context.signal,
  );
}

/** The host's side of a container: engine state, cgroup, mounts, bundle, writable layer. Idempotent. */
export async function takeAway(
  worker: Worker,
  record: Pick<ContainerRecord, 'id' | 'cgroupPath'>,
  signal: AbortSignal,
): Promise<void> {
  const places = placesOf(worker, record.id);
  if (worker.driver.relayingCreate !== undefined) endRelays(places.bundle);
  if (!worker.released.has(record.id)) await worker.engine.remove(record.id, signal);
  withdraw(record.id);
  unmountTree(places.bundle);
  await removeTree(places.bundle);
  await Promise.all([
    worker.driver.sandboxModel === 'root-container' ? removeLocks(worker, record.id) : undefined,
    removeTree(writableLayerOf(worker, record.id)),
    removeTree(places.work),
    removeTree(places.persist),
    removeTree(places.declaredVolumes),
    rm(join(worker.paths.exits, record.id), { force: true }),
  ]);
  if (record.cgroupPath.startsWith('/') && record.cgroupPath.length > 1) {
    worker.cgroups.remove(record.cgroupPath);
  }
}

/** runsc makes the lock of a container anew in any command that comes beside or after its delete. */
async function removeLocks(worker: Worker, id: string): Promise<void> {
  const { engineRoot } = worker.paths;
  const names = await listDirectory(engineRoot);
  const locks = names.filter((name) => name.startsWith(`${id}_`) && name.endsWith('.lock'));
  await Promise.all(locks.map((name) => rm(join(engineRoot, name), { force: true })));
}
