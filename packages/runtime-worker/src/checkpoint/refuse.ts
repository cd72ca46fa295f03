// Whether a handler can checkpoint and restore, in the words of a failure.

import { Failure } from '@cribus/contracts/failure.ts';
import type { Worker } from '../worker.ts';

/** unsupported for a family that has no criu; wrong_state, with criu's reason, where it can't work. */
export function refuseCheckpoints(worker: Worker, what: string): void {
  const { driver, handler } = worker;
  if (driver.features.checkpoint) return;
  const why = driver.details['checkpoint'] ?? driver.unavailable;
  const details = { stage: handler };
  if (driver.family === 'gvisor') {
    const sentence = 'runsc saves a whole Sentry, not one container of it, and knows no criu';
    throw new Failure('unsupported', `${what}: ${why ?? sentence}`, details);
  }
  throw new Failure('wrong_state', `${what}: ${why ?? 'criu was not found'}`, details);
}
