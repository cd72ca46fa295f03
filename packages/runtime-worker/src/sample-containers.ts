// Samples the usage of all containers of a handler at once: cgroups are read in place, what is slow
// (writable layers, an engine's own statistics) was read in the background while somebody asked.

import type { VerbHandler } from '@cribus/chassis/owner.ts';
import { pageAfter } from '@cribus/chassis/pages.ts';
import {
  CgroupUsage,
  ContainerPhase,
  type ContainerRecord,
  ContainerUsage,
  ProcessFigures,
} from '@cribus/contracts/gen/node/v1/records.ts';
import { readProcessFigures } from '@cribus/host/process-figures.ts';
import { createBackground } from './background-readings.ts';
import { createEngineReadings } from './engine-readings.ts';
import { createLayerReadings } from './layer-readings.ts';
import { createLoadAverages } from './load-averages.ts';
import type { Worker } from './worker.ts';

/** With details some 250 KB: a message of the bus has at most 1 MB. */
const PAGE_CONTAINERS_MAX = 250;
/** Between so many the event loop gets its turn: with details some 5 ms. */
const CONTAINERS_AT_ONCE = 16;

type Loads = ReturnType<typeof createLoadAverages>;

/** A container that does not run has its writable layer only. */
export function sampleContainers(worker: Worker): VerbHandler<'sample-containers'> {
  const { clock } = worker.service;
  const layers = createLayerReadings(worker);
  const engine = worker.driver.statsSource === 'engine' ? createEngineReadings(worker) : undefined;
  const background = createBackground(worker.service, [layers, ...(engine ? [engine] : [])]);
  const loads = createLoadAverages(clock);
  return async ({ details, pageToken }, { signal }) => {
    await background.asked(signal);
    const made = worker.store.all().filter(({ phase }) => phase !== ContainerPhase.CREATING);
    const { page, nextPageToken } = pageAfter(made, {
      token: pageToken,
      objectsMax: PAGE_CONTAINERS_MAX,
    });
    const containers: ContainerUsage[] = [];
    for (const [index, record] of page.entries()) {
      if (index > 0 && index % CONTAINERS_AT_ONCE === 0) await clock.sleep(0, signal);
      const cgroup = isRunning(record)
        ? engine === undefined || record.sandboxProcess
          ? readCgroup(worker, record, details)
          : engine.get(record)
        : undefined;
      const processes =
        details && cgroup !== undefined && engine === undefined && !record.sandboxProcess
          ? figuresOf(worker, record, loads)
          : undefined;
      const writableLayer = layers.get(record.id);
      containers.push(
        ContainerUsage.fromPartial({
          containerId: record.id,
          podSandboxId: record.sandboxId,
          sandboxProcess: record.sandboxProcess,
          insideSandboxProcess: engine !== undefined && !record.sandboxProcess,
          ...(cgroup === undefined ? {} : { cgroup }),
          ...(processes === undefined ? {} : { processes }),
          ...(writableLayer === undefined ? {} : { writableLayer }),
        }),
      );
    }
    loads.keep((id) => worker.store.get(id) !== undefined);
    return { containers, nextPageToken };
  };
}

function isRunning(record: ContainerRecord): boolean {
  return record.phase === ContainerPhase.RUNNING;
}

/** Undefined when it has no cgroup of its own, or has just lost it. */
function readCgroup(
  worker: Worker,
  { cgroupPath }: ContainerRecord,
  details: boolean,
): CgroupUsage | undefined {
  if (cgroupPath === '') return undefined;
  const sampledAtNs = worker.service.clock.nowNs();
  const usage = worker.cgroups.usage(cgroupPath, { details });
  if (usage.cpuNs === undefined && usage.memoryUsageBytes === undefined) return undefined;
  return CgroupUsage.fromPartial({ sampledAtNs, ...usage });
}

function figuresOf(
  worker: Worker,
  { id, cgroupPath, process: first }: ContainerRecord,
  loads: Loads,
): ProcessFigures | undefined {
  const pids = worker.cgroups.pids(cgroupPath);
  const init = first?.pid ?? 0;
  const figures = readProcessFigures(
    pids.includes(init) ? [init, ...pids.filter((pid) => pid !== init)] : pids,
  );
  if (figures === undefined) return undefined;
  return ProcessFigures.fromPartial({ ...figures, ...loads.add(id, figures) });
}
