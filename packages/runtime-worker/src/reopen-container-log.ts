// ReopenContainerLog, after the kubelet has renamed the log away.

import { constants, existsSync } from 'node:fs';
import { open } from 'node:fs/promises';
import { join } from 'node:path';
import type { VerbHandler } from '@cribus/chassis/owner.ts';
import { Failure } from '@cribus/contracts/failure.ts';
import { ContainerPhase, type ContainerRecord } from '@cribus/contracts/gen/node/v1/records.ts';
import { isErrno } from '@cribus/host/errno.ts';
import { withJoinedSignal } from '@cribus/host/joined-signals.ts';
import { tryNewLog } from './container-log.ts';
import { MONITOR_CONTROL, monitorMessage, tellMonitor } from './monitor.ts';
import { phaseName } from './phases.ts';
import { placesOf, requireContainer, type Worker } from './worker.ts';

const NEW_LOG_BUDGET_MS = 5_000;
const POLL_INTERVAL_MS = 5;
/** Messages are written whole up to this size (pipe(7)). */
const PIPE_BUF = 4096;

/**
 * conmon replaces an existing log when it reopens (its lines would be gone) and gives no answer. So
 * it is told only if there is no file at the log path, and the new one is waited for. On a failure
 * no file is left there, and none appears later unless conmon has taken the message and is slower than
 * the whole call. Calls at the same time follow each other.
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
        await tryNewLog(record.id, record.logPath);
        await reopen(worker, record, context.signal);
        return {};
      },
      context.signal,
    );
}

async function reopen(worker: Worker, record: ContainerRecord, signal: AbortSignal): Promise<void> {
  const { clock } = worker.service;
  const { bundle } = placesOf(worker, record.id);
  const appears = async (budget: AbortSignal): Promise<void> => {
    while (!existsSync(record.logPath)) await clock.sleep(POLL_INTERVAL_MS, budget);
  };
  try {
    await tellMonitor(bundle, 'reopen-log');
    await withJoinedSignal([signal, clock.timeout(NEW_LOG_BUDGET_MS)], appears).catch(
      async (error: unknown) => {
        if (await takeBack(join(bundle, MONITOR_CONTROL))) throw error;
        // It is at it: what it makes is the log from then on, and nobody else's to take away.
        await appears(signal);
      },
    );
  } catch (error) {
    throw new Failure('timeout', `the monitor of ${record.id} did not reopen its log`, {
      stage: 'reopen log',
      cause: error,
    });
  }
}

/**
 * A monitor that hangs would find the message when it goes on, and replace what is at the log path by
 * then: the caller has put the old log back. Other messages stay. False where it has the message already.
 */
async function takeBack(fifo: string): Promise<boolean> {
  try {
    const file = await open(fifo, constants.O_RDWR | constants.O_NONBLOCK);
    try {
      const { buffer, bytesRead } = await file.read(Buffer.alloc(PIPE_BUF), 0, PIPE_BUF);
      const waiting = buffer.toString('latin1', 0, bytesRead);
      const others = waiting.replaceAll(monitorMessage('reopen-log'), '');
      if (others !== '') await file.write(others);
      return others !== waiting;
    } finally {
      await file.close();
    }
  } catch (error) {
    if (!isErrno(error, 'ENOENT', 'EAGAIN')) throw error;
    return false;
  }
}
