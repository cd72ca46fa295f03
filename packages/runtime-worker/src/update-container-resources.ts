// UpdateContainerResources: new limits for a container that has a process, all of them or none.
//
// With the cgroupfs driver the control files are written straight away: engines keep no limits that
// they would write again. With systemd's driver systemd does (a `daemon-reload` resets a scope to what
// it knows), so there the engine's own `update` tells it.

import type { VerbHandler } from '@cribus/chassis/owner.ts';
import { Failure, isFailure } from '@cribus/contracts/failure.ts';
import type { LinuxContainerResources } from '@cribus/contracts/gen/cri/v1/api.ts';
import type { ContainerRecord } from '@cribus/contracts/gen/node/v1/records.ts';
import { isErrno } from '@cribus/host/errno.ts';
import { moveOomScores } from '@cribus/host/oom-score.ts';
import { invalidOf } from '@cribus/oci/invalid-field.ts';
import { mergeResources } from '@cribus/oci/merge-resources.ts';
import { buildResources, oomScoreAdj } from '@cribus/oci/resources.ts';
import type { SpecResources } from '@cribus/oci/spec.ts';
import type { HostFacts } from '@cribus/oci/spec-input.ts';
import { isLive, phaseName } from './phases.ts';
import { updatedLimits } from './updated-limits.ts';
import { requireContainer, type Worker } from './worker.ts';

const UNDO_BUDGET_MS = 30_000;

/**
 * 0 and empty mean unspecified. Raises wrong_state for a container without a process and for a memory
 * limit below what is in use, invalid_argument for what the kernel refuses, unsupported where nothing
 * limits a single container.
 */
export function updateContainerResources(
  worker: Worker,
  facts: () => HostFacts,
): VerbHandler<'update-container-resources'> {
  return (request, context) =>
    worker.lifecycle.run(
      request.containerId,
      async () => {
        const record = requireContainer(worker, request.containerId);
        const update = request.linux;
        if (worker.driver.limitsBy === 'nobody') throw notLimited(worker, record);
        if (!isLive(record)) {
          const phase = phaseName(record.phase);
          throw new Failure('wrong_state', `container ${record.id} is ${phase}: it has no limits`);
        }
        if (update === undefined) return {};
        const change = { record, update, facts: facts(), signal: context.signal };
        const applied = await apply(worker, change);
        for (const note of applied.notes) context.log.info({ container: record.id }, note);
        try {
          const { resources } = applied;
          const { changed } = context;
          await worker.changes.apply(record.id, () => ({ resources }), { changed });
        } catch (error) {
          await applied.undo();
          throw error;
        }
        return {};
      },
      context.signal,
    );
}

function notLimited(worker: Worker, record: ContainerRecord): Failure {
  return new Failure(
    'unsupported',
    `container ${record.id}: the containers of a pod of handler "${worker.handler}" share one sandbox process, and only the cgroup of the pod limits it`,
  );
}

interface Change {
  readonly record: ContainerRecord;
  readonly update: LinuxContainerResources;
  readonly facts: HostFacts;
  readonly signal: AbortSignal;
}

interface Applied {
  readonly resources: LinuxContainerResources;
  readonly notes: readonly string[];
  undo(): Promise<void>;
}

async function apply(worker: Worker, change: Change): Promise<Applied> {
  const { record, update, facts } = change;
  const invalid = invalidOf(`container ${record.id}`);
  const resources = mergeResources(record.resources, update);
  const built = buildResources({ resources, host: facts }, invalid);
  const score = oomScoreAdj(resources.oomScoreAdj, facts);
  const formerScore = oomScoreAdj(record.resources?.oomScoreAdj ?? 0n, facts).score;
  const former = buildResources({ resources: record.resources, host: facts }, invalid);
  const limits = updatedLimits(update, { built: built.resources, former: record.resources });
  const undos: (() => Promise<void> | void)[] = [];
  const undo = async () => {
    for (const each of undos.splice(0).reverse()) {
      try {
        await each();
      } catch (error) {
        const fields = { container: record.id, error: String(error) };
        worker.service.log.error(fields, 'a limit could not be put back');
      }
    }
  };
  try {
    if (worker.driver.limitsBy === 'engine') {
      const undoSignal = () => worker.service.clock.timeout(UNDO_BUDGET_MS);
      // Some engines look themselves, runc since 1.2; systemd and the kernel set any limit.
      await worker.cgroups.makeRoom(record.cgroupPath, limits);
      // Before: one that fails may have done a part of it. Systemd is told, then the files are put back.
      undos.push(worker.cgroups.rememberLimits(record.cgroupPath, limits));
      undos.push(() =>
        worker.engine.update(record.id, unlimitedOr(former.resources), undoSignal()),
      );
      await worker.engine.update(record.id, built.resources, change.signal);
      // Engines leave huge pages out of an update, and systemd knows nothing of them.
      const { hugePages } = limits;
      if (hugePages !== undefined) {
        undos.push(await worker.cgroups.setLimits(record.cgroupPath, { hugePages }));
      }
    } else {
      undos.push(await worker.cgroups.setLimits(record.cgroupPath, limits));
    }
    if (score.score !== formerScore) {
      const pids = worker.cgroups.pids(record.cgroupPath);
      undos.push(moveOomScores(pids, { from: formerScore, to: score.score }));
    }
  } catch (error) {
    await undo();
    throw refusal(error, record);
  }
  return { resources, notes: [...built.notes, ...score.notes], undo };
}

/** What a container has that was made with these limits, spelled out: an update takes it for unset else. */
function unlimitedOr(limits: Omit<SpecResources, 'devices'>): Omit<SpecResources, 'devices'> {
  return {
    ...limits,
    memory: { limit: -1, swap: -1, ...limits.memory },
    cpu: { ...CPU_DEFAULTS, ...limits.cpu },
  };
}

/** Of a new cgroup (Linux, sched-bwc.rst, and 1024 shares). */
const CPU_DEFAULTS = { shares: 1024, quota: -1, period: 100_000 };

function refusal(error: unknown, record: ContainerRecord): unknown {
  if (isFailure(error) || !(error instanceof Error)) return error;
  const options = { stage: 'limits', cause: error };
  const message = `container ${record.id}: ${error.message}`;
  if (isErrno(error, 'EINVAL', 'ERANGE', 'EACCES', 'EPERM', 'E2BIG', 'EOPNOTSUPP')) {
    return new Failure('invalid_argument', message, options);
  }
  if (isErrno(error, 'EBUSY', 'ENOENT', 'ENODEV', 'ENOSPC')) {
    return new Failure('wrong_state', message, options);
  }
  return error;
}
