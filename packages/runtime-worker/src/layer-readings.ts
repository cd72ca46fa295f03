// What containers wrote into their writable layers.

import { ContainerPhase, LayerUsage } from '@cribus/contracts/gen/node/v1/records.ts';
import {
  directoryUsage,
  type FilesystemCapacity,
  filesystemCapacity,
} from '@cribus/host/directory-usage.ts';
import type { Readings } from './background-readings.ts';
import { placesOf, type Worker, writableLayerOf } from './worker.ts';

/** Walked for so long at once, with such a rest between: a fifth of one processor while it lasts. */
const SLICE_MS = 4;
const PAUSE_MS = 16;

export interface LayerReadings extends Readings {
  get(id: string): LayerUsage | undefined;
}

/** Every two seconds, a large layer less often: an hundredth of the time at most. */
export function createLayerReadings(worker: Worker): LayerReadings {
  const { clock } = worker.service;
  const usages = new Map<string, LayerUsage>();
  /** Read after their end: they don't change any more. */
  const final = new Set<string>();
  let capacity: { readonly of: FilesystemCapacity; readonly untilMs: number } | undefined;
  const filesystem = (path: string): FilesystemCapacity => {
    if (capacity === undefined || capacity.untilMs < clock.monotonicMs()) {
      capacity = { of: filesystemCapacity(path), untilMs: clock.monotonicMs() + 10_000 };
    }
    return capacity.of;
  };
  const isOver = (id: string) => worker.store.get(id)?.phase === ContainerPhase.EXITED;
  return {
    name: 'usage of writable layers',
    everyMs: 2_000,
    share: 100,
    firstWaitMs: 250,
    due: () =>
      worker.store
        .all()
        .filter(({ id, sandboxProcess, phase }) => {
          const isThere = phase !== ContainerPhase.CREATING && phase !== ContainerPhase.REMOVING;
          return !sandboxProcess && isThere && !final.has(id);
        })
        .map(({ id }) => id),
    has: (id) => usages.has(id),
    get: (id) => usages.get(id),
    prune: () => {
      for (const id of usages.keys()) {
        if (worker.store.get(id) !== undefined) continue;
        usages.delete(id);
        final.delete(id);
      }
    },
    read: async (id, signal) => {
      const wasOver = isOver(id);
      const sampledAtNs = clock.nowNs();
      const options = { clock, signal, sliceMs: SLICE_MS, pauseMs: PAUSE_MS };
      // Volumes that the image declares are the container's own too, and limited with its layer.
      const layer = await directoryUsage(writableLayerOf(worker, id), options);
      const volumes = await directoryUsage(placesOf(worker, id).declaredVolumes, options);
      const usage = LayerUsage.fromPartial({
        sampledAtNs,
        usedBytes: layer.usedBytes + volumes.usedBytes,
        inodesUsed: layer.inodesUsed + volumes.inodesUsed,
        ...filesystem(worker.paths.containers),
      });
      usages.set(id, usage);
      if (wasOver) final.add(id);
    },
  };
}
