// How many sandboxes there are, by handler and state.

import { SandboxPhase } from '@cribus/contracts/gen/node/v1/records.ts';
import type { SandboxDeps } from './sandbox-deps.ts';

const STATES: Readonly<Record<SandboxPhase, string>> = {
  [SandboxPhase.CREATING]: 'creating',
  [SandboxPhase.READY]: 'ready',
  [SandboxPhase.STOPPING]: 'stopping',
  [SandboxPhase.NOTREADY]: 'notready',
  [SandboxPhase.REMOVING]: 'removing',
};

/** Every state of every known handler is there from the start, so that graphs have no gaps. */
export function observeSandboxes(deps: SandboxDeps): void {
  const { metrics } = deps.service;
  metrics.gauge(
    'cribus_sandboxes',
    'Sandboxes by handler and state.',
    ['handler', 'state'],
    (gauge) => {
      gauge.reset();
      for (const handler of deps.handlers) {
        for (const state of Object.values(STATES)) gauge.set({ handler, state }, 0);
      }
      for (const { handler, phase } of deps.store.all()) {
        gauge.inc({ handler, state: STATES[phase] });
      }
    },
  );
}
