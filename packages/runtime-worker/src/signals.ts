// Delivering a signal to a container's first process, by the family's way.

import { constants } from 'node:os';
import type { ContainerRecord } from '@cribus/contracts/gen/node/v1/records.ts';
import { signalNumber } from '@cribus/contracts/signals.ts';
import { signalProcess } from '@cribus/host/processes.ts';
import type { Worker } from './worker.ts';

/** True when the signal was delivered. */
export async function signalContainer(
  worker: Worker,
  record: ContainerRecord,
  options: { readonly name: string; readonly signal: AbortSignal },
): Promise<boolean> {
  const number = signalNumber(options.name) ?? constants.signals.SIGTERM;
  // A sandbox's process is one of the host's, and can be killed without its engine.
  const byProcess = record.sandboxProcess && worker.driver.unavailable !== undefined;
  if (worker.driver.signalBy === 'engine' && !byProcess) {
    return await worker.engine.kill(record.id, String(number), options.signal);
  }
  return record.process !== undefined && signalProcess(record.process, number);
}
