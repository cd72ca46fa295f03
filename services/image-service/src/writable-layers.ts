// Where the writable layers of containers are and what they take, for ImageFsInfo: on the images'
// filesystem, or on one of their own where something else is mounted. Measured in the background, and
// only while somebody asks.

import { join } from 'node:path';
import type { Service } from '@cribus/chassis/service.ts';
import { stackPaths } from '@cribus/contracts/paths.ts';
import { directoryUsage } from '@cribus/host/directory-usage.ts';
import { isSameFilesystem, listDirectory } from '@cribus/host/files.ts';

export interface WritableLayersUsage {
  /** Equal to the images directory where both share a filesystem: another one means a split disk. */
  readonly mountpoint: string;
  readonly bytes: bigint;
  readonly inodes: bigint;
  readonly measuredAtNs: bigint;
}

export interface WritableLayers {
  /** As last measured, but for where they are; says that somebody asks. */
  usage(): WritableLayersUsage;
  /** Measures if that is due. Rejects with the reason of the service's end. */
  measure(): Promise<void>;
}

/** As often as the kubelet looks; less often where a walk is long, which then takes 5 % of the time. */
const EVERY_MS = 10_000;
const REST_FACTOR = 20;
const GOES_ON_MS = 5 * 60_000;
/** A walk of many files lets the other work go on. */
const SLICE_MS = 5;
const PAUSE_MS = 20;

export function createWritableLayers(
  service: Pick<Service, 'config' | 'clock' | 'stopping'>,
): WritableLayers {
  const { clock, config, stopping } = service;
  const { images } = stackPaths(config.roots);
  const handlers = join(config.roots.state, 'handlers');
  let usage = { bytes: 0n, inodes: 0n, measuredAtNs: clock.nowNs() };
  let askedAtMs = clock.monotonicMs();
  let dueAtMs = askedAtMs;
  let measured = false;
  return {
    usage() {
      askedAtMs = clock.monotonicMs();
      const shared = isSameFilesystem(images, handlers);
      return { mountpoint: shared ? images : handlers, ...usage };
    },
    async measure() {
      const nowMs = clock.monotonicMs();
      if (nowMs < dueAtMs || nowMs > askedAtMs + GOES_ON_MS) return;
      let bytes = 0n;
      let inodes = 0n;
      // Somebody may wait for the first one.
      const pauseMs = measured ? PAUSE_MS : SLICE_MS;
      const walk = { clock, signal: stopping, sliceMs: SLICE_MS, pauseMs };
      for (const handler of await listDirectory(handlers)) {
        const used = await directoryUsage(join(handlers, handler, 'containers'), walk);
        bytes += used.usedBytes;
        inodes += used.inodesUsed;
        if (!measured) usage = { bytes, inodes, measuredAtNs: clock.nowNs() };
      }
      measured = true;
      usage = { bytes, inodes, measuredAtNs: clock.nowNs() };
      const tookMs = clock.monotonicMs() - nowMs;
      dueAtMs = clock.monotonicMs() + Math.max(EVERY_MS, tookMs * REST_FACTOR);
    },
  };
}
