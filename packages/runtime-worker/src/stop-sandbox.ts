// Stopping and removing everything that this worker has of a sandbox.

import type { VerbContext, VerbHandler } from '@cribus/chassis/owner.ts';
import { removeOne } from './remove-container.ts';
import { stopOne } from './stop-container.ts';
import { recordsOfSandbox, type Worker } from './worker.ts';

/** An absent sandbox is stopped. Nothing can be created in it from now on. */
export function stopSandbox(worker: Worker): VerbHandler<'stop-sandbox'> {
  return async (request, context) => {
    await fence(worker, request.podSandboxId);
    await stopAll(worker, request.podSandboxId, context);
    return {};
  };
}

/** An absent sandbox is removed. */
export function removeSandbox(worker: Worker): VerbHandler<'remove-sandbox'> {
  return async (request, context) => {
    const sandboxId = request.podSandboxId;
    await fence(worker, sandboxId);
    await stopAll(worker, sandboxId, context);
    const records = recordsOfSandbox(worker, sandboxId);
    await allEnded(
      records
        .filter((record) => !record.sandboxProcess)
        .map((record) => removeOne(worker, record.id, context)),
    );
    for (const record of records) {
      if (record.sandboxProcess) await removeOne(worker, record.id, context);
    }
    worker.fenced.delete(sandboxId);
    worker.execStarts.forget(sandboxId);
    return {};
  };
}

/** Refuses new creates, and waits for those that were let in. */
async function fence(worker: Worker, sandboxId: string): Promise<void> {
  worker.fenced.add(sandboxId);
  const running = [...worker.creations.values()].filter(
    (creation) => creation.sandboxId === sandboxId,
  );
  await Promise.allSettled(running.map((creation) => creation.done));
}

/**
 * The pod's containers at once, then its own process, which reaps for them; but where they live
 * inside that process (a Sentry) it goes first, and they with it: one kill instead of one each.
 */
async function stopAll(worker: Worker, sandboxId: string, context: VerbContext): Promise<void> {
  const records = recordsOfSandbox(worker, sandboxId);
  const containers = records.filter((record) => !record.sandboxProcess);
  const processes = records.filter((record) => record.sandboxProcess);
  const inside = worker.driver.sandboxModel === 'root-container';
  for (const group of inside ? [processes, containers] : [containers, processes]) {
    await allEnded(group.map(({ id }) => stopOne(worker, id, { graceMs: 0, context })));
  }
}

/** The first failure, once none of them runs any more: their signal ends with the call. */
async function allEnded(steps: readonly Promise<unknown>[]): Promise<void> {
  for (const step of await Promise.allSettled(steps)) {
    if (step.status === 'rejected') throw step.reason;
  }
}
