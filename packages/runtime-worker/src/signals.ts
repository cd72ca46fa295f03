// Delivering a signal to a container's first process, by the family's way.

import { constants } from 'node:os';
import type { ContainerRecord } from '@cribus/contracts/gen/node/v1/records.ts';
import { signalProcess } from '@cribus/host/processes.ts';
import type { Worker } from './worker.ts';

/** signal(7) on x86_64 and arm64; glibc keeps 32 and 33 for itself. */
const SIGRTMIN = 34;
const SIGRTMAX = 64;

/**
 * The number of a signal named with or without SIG, as in TERM, SIGTERM, RTMIN+3 or 15; undefined
 * for an unknown name.
 */
export function signalNumber(name: string): number | undefined {
  if (/^\d+$/.test(name))
    return Number(name) >= 1 && Number(name) <= SIGRTMAX ? Number(name) : undefined;
  const bare = name.toUpperCase().replace(/^SIG/, '');
  const realTime = /^RT(MIN|MAX)(?:([+-])(\d+))?$/.exec(bare);
  if (realTime !== null) {
    const offset = Number(realTime[3] ?? 0) * (realTime[2] === '-' ? -1 : 1);
    const number = (realTime[1] === 'MIN' ? SIGRTMIN : SIGRTMAX) + offset;
    return number >= SIGRTMIN && number <= SIGRTMAX ? number : undefined;
  }
  return (constants.signals as Readonly<Record<string, number>>)[`SIG${bare}`];
}

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
