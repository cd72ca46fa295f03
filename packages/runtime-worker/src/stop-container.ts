// StopContainer: the stop signal, a grace period, then SIGKILL; answered only when the end is
// recorded. A stop that finds another one running joins it and keeps the earlier kill time.

import type { VerbContext, VerbHandler } from '@cribus/chassis/owner.ts';
import { addChanged } from '@cribus/chassis/records.ts';
import { ContainerPhase } from '@cribus/contracts/gen/node/v1/records.ts';
import { withJoinedSignal } from '@cribus/host/joined-signals.ts';
import { diedWithItsSandbox, EXIT_CODE_KILLED } from './exits.ts';
import { killOrphan } from './orphans.ts';
import { isLive } from './phases.ts';
import { signalContainer } from './signals.ts';
import type { Worker } from './worker.ts';

/** A killed process that isn't gone after this is stuck in the kernel. */
const DEATH_BUDGET_MS = 60_000;
/** A longer grace is cut to this (a day): timers can't hold more than 24 days. */
const GRACE_MS_MAX = 24 * 60 * 60 * 1000;

/** An absent container is stopped already. */
export function stopContainer(worker: Worker): VerbHandler<'stop-container'> {
  return async (request, context) => {
    const record = worker.store.get(request.containerId);
    if (record === undefined || record.sandboxProcess) return {};
    const graceMs = Math.min(Math.max(Number(request.timeoutS), 0) * 1000, GRACE_MS_MAX);
    await stopOne(worker, record.id, { graceMs, context });
    return {};
  };
}

export interface StopOptions {
  readonly graceMs: number;
  readonly context: VerbContext;
}

/** Stops a container or a sandbox's process; returns when its end is recorded. */
export async function stopOne(worker: Worker, id: string, options: StopOptions): Promise<void> {
  const { context } = options;
  // A start in flight ends first: what it starts must be stopped.
  const record = await worker.lifecycle.run(
    id,
    async () =>
      worker.changes.apply(
        id,
        (now) => (isLive(now) && !now.stopRequested ? { stopRequested: true } : undefined),
        { changed: context.changed },
      ),
    context.signal,
  );
  if (record?.phase === ContainerPhase.UNKNOWN) await endUnknown(worker, id, context);
  if (record === undefined || !isLive(record)) return;
  const joined = joinStop(worker, id, options.graceMs);
  try {
    if (record.phase === ContainerPhase.RUNNING && options.graceMs > 0) {
      if (joined.first) {
        const name = record.stopSignal === '' ? 'TERM' : record.stopSignal;
        await signalContainer(worker, record, { name, signal: context.signal });
      }
      await graceUntil(worker, id, { killAtMs: joined.killAtMs, hurry: joined.hurry, context });
    }
    await kill(worker, id, context);
  } finally {
    joined.leave();
  }
  reportAfter(worker, id, context);
}

/** Nobody watches it: whatever it has of processes is killed, and then it has ended. */
async function endUnknown(worker: Worker, id: string, context: VerbContext): Promise<void> {
  await worker.lifecycle.run(
    id,
    async () => {
      await killOrphan(worker, id, context.signal);
      await worker.exits.awaitStopped(id, context.signal);
      const finishedAtNs = worker.service.clock.nowNs();
      const end = { phase: ContainerPhase.EXITED, exitCode: EXIT_CODE_KILLED, finishedAtNs };
      await worker.changes.apply(
        id,
        ({ phase }) => (phase === ContainerPhase.UNKNOWN ? end : undefined),
        { changed: context.changed },
      );
    },
    context.signal,
  );
}

/** The stops of one container share a kill time; an earlier one hurries those that wait. */
function joinStop(worker: Worker, id: string, graceMs: number) {
  const atMs = worker.service.clock.monotonicMs() + graceMs;
  const hurry = new AbortController();
  const running = worker.killTimes.get(id);
  const shared = running ?? { atMs, hurry: [] };
  worker.killTimes.set(id, shared);
  shared.hurry.push(hurry);
  if (atMs < shared.atMs) {
    shared.atMs = atMs;
    for (const other of shared.hurry) if (other !== hurry) other.abort();
  }
  return {
    first: running === undefined,
    killAtMs: () => shared.atMs,
    hurry,
    leave: () => {
      shared.hurry.splice(shared.hurry.indexOf(hurry), 1);
      if (shared.hurry.length === 0) worker.killTimes.delete(id);
    },
  };
}

async function graceUntil(
  worker: Worker,
  id: string,
  options: {
    readonly killAtMs: () => number;
    readonly hurry: AbortController;
    readonly context: VerbContext;
  },
): Promise<void> {
  const { clock, stopping } = worker.service;
  const leftMs = Math.max(0, options.killAtMs() - clock.monotonicMs());
  const endedWithin = (signals: readonly AbortSignal[]) =>
    withJoinedSignal([...signals, stopping], (signal) => worker.exits.ended(id, signal));
  try {
    await endedWithin([clock.timeout(leftMs), options.hurry.signal]);
  } catch (error) {
    if (stopping.aborted) throw error;
    if (options.hurry.signal.aborted && options.killAtMs() > clock.monotonicMs()) {
      const soonerMs = options.killAtMs() - clock.monotonicMs();
      await endedWithin([clock.timeout(soonerMs)]).catch(() => undefined);
    }
  }
}

async function kill(worker: Worker, id: string, context: VerbContext): Promise<void> {
  const record = worker.store.get(id);
  if (record === undefined || !isLive(record)) return;
  const limits = [worker.service.clock.timeout(DEATH_BUDGET_MS), worker.service.stopping];
  await withJoinedSignal(limits, async (signal) => {
    if (!diedWithItsSandbox(worker, record)) {
      const delivered = await signalContainer(worker, record, { name: 'KILL', signal });
      if (!delivered && record.monitor === undefined) {
        // Nothing will ever report the end of a record that has neither monitor nor process.
        await worker.exits.record(id, { exitCode: EXIT_CODE_KILLED, reason: 'Error' });
        return;
      }
    }
    await worker.exits.settle(id, { killed: true }).catch((error: unknown) => {
      context.log.warn({ container: id, error: String(error) }, 'the exit is not recorded yet');
    });
    await worker.exits.ended(id, signal);
  });
}

/** The end was recorded by the exit path; the caller of this verb must read it too. */
export function reportAfter(worker: Worker, id: string, context: VerbContext): void {
  const record = worker.store.get(id);
  if (record === undefined) return;
  addChanged(context.changed, {
    owner: worker.owner,
    version: record.version,
    id,
    deleted: false,
    object: { $case: 'container', value: record },
    sequence: 0n,
  });
}
