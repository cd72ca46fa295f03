// StartContainer: lets the created process run.

import type { VerbHandler } from '@cribus/chassis/owner.ts';
import { Failure } from '@cribus/contracts/failure.ts';
import { ContainerPhase } from '@cribus/contracts/gen/node/v1/records.ts';
import { awaitsRestore, restoreProcess } from './checkpoint/restore.ts';
import { phaseName } from './phases.ts';
import { openRelays } from './relayed-stdio.ts';
import { tellEndOfTerminal } from './terminal-end.ts';
import { placesOf, requireContainer, stamp, type Worker } from './worker.ts';

/** wrong_state unless it is CREATED; a repeated operation id gets its success again. */
export function startContainer(worker: Worker): VerbHandler<'start-container'> {
  return (request, context) =>
    worker.lifecycle.run(
      request.containerId,
      async () => {
        const record = requireContainer(worker, request.containerId);
        const { id } = record;
        if (record.phase !== ContainerPhase.CREATED) {
          if (record.operation?.operationId === context.operationId && record.startedAtNs > 0n) {
            return {};
          }
          throw new Failure(
            'wrong_state',
            `container ${id} is ${phaseName(record.phase)}, so it can't be started`,
          );
        }
        if (record.stopRequested || worker.fenced.has(record.sandboxId)) {
          throw new Failure('wrong_state', `container ${id} is being stopped`);
        }
        const startedAtNs = worker.service.clock.nowNs();
        const restored = awaitsRestore(record)
          ? await restoreProcess(worker, record, context.signal)
          : undefined;
        if (restored === undefined) await startProcess(worker, id, context.signal);
        const after = await worker.changes.apply(
          id,
          (now) => ({
            ...(now.phase === ContainerPhase.CREATED ? { phase: ContainerPhase.RUNNING } : {}),
            ...restored,
            startedAtNs,
            operation: stamp(worker, 'start-container', context),
          }),
          { changed: context.changed },
        );
        if (restored !== undefined && after !== undefined) worker.exits.watch(after);
        return {};
      },
      context.signal,
    );
}

async function startProcess(worker: Worker, id: string, signal: AbortSignal): Promise<void> {
  if (worker.driver.relayingCreate === undefined) {
    await worker.engine.start(id, signal);
    return;
  }
  const stdio = openRelays(placesOf(worker, id).bundle);
  try {
    await worker.engine.start(id, signal, stdio.fds);
    tellEndOfTerminal(worker, id);
  } finally {
    stdio.close();
  }
}
