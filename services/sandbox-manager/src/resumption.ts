// Finishing what could not be finished when it was asked: a stop or a removal whose worker was
// down, or whose network plugin failed. Workers' heartbeats drive it.

import { SandboxPhase, type SandboxRecord } from '@cribus/contracts/gen/node/v1/records.ts';
import { runtimeOwner } from '@cribus/contracts/subjects.ts';
import { joinSignals } from '@cribus/host/joined-signals.ts';
import { keyOf } from './reservations.ts';
import { backgroundCaller, type SandboxDeps } from './sandbox-deps.ts';
import { removeById } from './verbs/remove-pod-sandbox.ts';
import { stopById } from './verbs/stop-pod-sandbox.ts';

const RETRY_FIRST_MS = 1_000;
const RETRY_MAX_MS = 60_000;
/** As the budget of StopPodSandbox. */
const ATTEMPT_MS = 120_000;

interface Attempts {
  running: boolean;
  nextMs: number;
  delayMs: number;
}

export interface Resumption {
  /** Tries every unfinished sandbox of this owner whose time has come; `now`: all of them. */
  resume(owner: string, options?: { readonly now: boolean }): void;
}

export function createResumption(deps: SandboxDeps): Resumption {
  const { clock, log, stopping } = deps.service;
  const attempts = new Map<string, Attempts>();

  async function attempt(record: SandboxRecord, state: Attempts): Promise<void> {
    const { signal, release } = joinSignals([stopping, clock.timeout(ATTEMPT_MS)]);
    const caller = backgroundCaller(deps.service, { requestId: `resume.${record.id}`, signal });
    state.running = true;
    try {
      if (record.phase === SandboxPhase.REMOVING) await removeById(deps, caller, record.id);
      else await stopById(deps, caller, record.id);
      attempts.delete(record.id);
    } catch (error) {
      log.warn({ pod_sandbox_id: record.id, error }, 'a stop or removal is still not finished');
      state.nextMs = clock.monotonicMs() + state.delayMs;
      state.delayMs = Math.min(state.delayMs * 2, RETRY_MAX_MS);
    } finally {
      release();
      state.running = false;
    }
  }

  return {
    resume(owner, { now } = { now: false }) {
      for (const record of unfinished(deps).filter(
        ({ handler }) => runtimeOwner(handler) === owner,
      )) {
        const state = attempts.get(record.id) ?? {
          running: false,
          // A verb may be at work on it: give it time before we join in.
          nextMs: now ? 0 : clock.monotonicMs() + RETRY_FIRST_MS,
          delayMs: RETRY_FIRST_MS,
        };
        attempts.set(record.id, state);
        if (state.running || clock.monotonicMs() < state.nextMs) continue;
        deps.reservations.repairing(keyOf(record), attempt(record, state));
      }
      for (const id of attempts.keys()) {
        if (deps.store.get(id) === undefined) attempts.delete(id);
      }
    },
  };
}

function unfinished(deps: SandboxDeps): SandboxRecord[] {
  return deps.store
    .all()
    .filter(({ phase }) => phase === SandboxPhase.STOPPING || phase === SandboxPhase.REMOVING);
}
