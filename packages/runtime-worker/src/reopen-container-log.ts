// ReopenContainerLog, after the kubelet has renamed the log away.

import { constants, existsSync } from 'node:fs';
import { open, rm } from 'node:fs/promises';
import { join } from 'node:path';
import type { VerbHandler } from '@cribus/chassis/owner.ts';
import { Failure } from '@cribus/contracts/failure.ts';
import { ContainerPhase } from '@cribus/contracts/gen/node/v1/records.ts';
import { phaseName } from './phases.ts';
import { placesOf, requireContainer, type Worker } from './worker.ts';

const NEW_LOG_BUDGET_MS = 5_000;
const POLL_INTERVAL_MS = 10;

/**
 * conmon replaces an existing log when it reopens (its lines would be gone) and gives no answer. So
 * it is told only if there is no file at the log path, and the new one is waited for. On a failure
 * no file is left there.
 */
export function reopenContainerLog(worker: Worker): VerbHandler<'reopen-container-log'> {
  return (request, context) =>
    worker.lifecycle.run(
      request.containerId,
      async () => {
        const record = requireContainer(worker, request.containerId);
        if (record.phase !== ContainerPhase.RUNNING) {
          throw new Failure(
            'wrong_state',
            `container ${record.id} is ${phaseName(record.phase)}, so its log can't be reopened`,
          );
        }
        if (record.logPath === '' || existsSync(record.logPath)) return {};
        const { clock } = worker.service;
        const signal = AbortSignal.any([context.signal, clock.timeout(NEW_LOG_BUDGET_MS)]);
        try {
          await tellMonitor(join(placesOf(worker, record.id).bundle, 'ctl'));
          while (!existsSync(record.logPath)) await clock.sleep(POLL_INTERVAL_MS, signal);
          return {};
        } catch (error) {
          await rm(record.logPath, { force: true });
          throw new Failure('timeout', `the monitor of ${record.id} did not reopen its log`, {
            stage: 'reopen log',
            cause: error,
          });
        }
      },
      context.signal,
    );
}

/** Non-blocking: a fifo that nobody reads (ENXIO) has no monitor. */
async function tellMonitor(fifo: string): Promise<void> {
  const file = await open(fifo, constants.O_WRONLY | constants.O_NONBLOCK);
  try {
    await file.write('2 0 0\n');
  } finally {
    await file.close();
  }
}
