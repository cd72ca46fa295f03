// The tour: one image under runc and under gVisor, and both kernels side by side.

import type { Config } from '@cribus/chassis/config.ts';
import { Failure } from '@cribus/contracts/failure.ts';
import type { Stack } from '../stack/open-stack.ts';

export interface TourOptions {
  /** It is up and ready. */
  readonly stack: Stack;
  /** As the services have it: ports, sockets, networks. */
  readonly config: Config;
  /** Another image than the tour's own. */
  readonly image: string | undefined;
  readonly print: (line: string) => void;
  /** Aborts at Ctrl-C: the tour then removes what it made, and returns. */
  readonly signal: AbortSignal;
}

/** Runs the tour; its own pods and registry are gone when it returns or throws. */
export async function runTour(_options: TourOptions): Promise<void> {
  throw new Failure('unsupported', 'the tour is not built');
}
