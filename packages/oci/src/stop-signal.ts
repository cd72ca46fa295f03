// The signal that asks a container to stop.

import { Signal } from '@cribus/contracts/gen/cri/v1/api.ts';
import { criSignalName, signalName } from '@cribus/contracts/signals.ts';

export interface StopSignalInput {
  readonly requested: Signal;
  /** The image's StopSignal: SIGTERM, TERM, 15, SIGRTMIN+3; empty where absent. */
  readonly image: string;
}

/**
 * The request's signal, else the image's, else TERM; as a record has it (signals.ts). An image's
 * that is no signal is passed over with a note: the container must still be stoppable.
 */
export function resolveStopSignal(input: StopSignalInput) {
  if (input.requested !== Signal.RUNTIME_DEFAULT) {
    return { signal: criSignalName(input.requested), notes: [] };
  }
  if (input.image === '') return { signal: 'TERM', notes: [] };
  const signal = signalName(input.image);
  if (signal !== undefined) return { signal, notes: [] };
  const shown = JSON.stringify(input.image.slice(0, 40));
  return { signal: 'TERM', notes: [`the image's StopSignal ${shown} is no signal: TERM is used`] };
}
