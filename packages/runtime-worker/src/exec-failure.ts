// Why a command could not be executed, where the engine's words don't tell it: a container that ends
// while the engine enters it makes it stumble over whatever is gone first.

import { Failure } from '@cribus/contracts/failure.ts';
import type { ContainerRecord } from '@cribus/contracts/gen/node/v1/records.ts';
import { isAlive } from '@cribus/host/processes.ts';

/**
 * The failure itself, or wrong_state with it as the cause if the container's process is gone: a caller
 * that probes must not read its own mistake, or a lack of memory, into an end.
 */
export function execFailure(record: ContainerRecord, failure: unknown): unknown {
  const { id, process } = record;
  if (!(failure instanceof Failure) || process === undefined || isAlive(process)) return failure;
  // These say what was done to the command, whatever became of the container.
  if (failure.kind === 'timeout' || failure.kind === 'unavailable') return failure;
  return new Failure(
    'wrong_state',
    `container ${id} ended before anything could be executed in it`,
    {
      cause: failure,
    },
  );
}
