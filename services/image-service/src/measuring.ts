// What the layers of images and of containers take, measured in the background for ImageFsInfo. Only the first
// answers wait for it, and not for long.

import type { Service } from '@cribus/chassis/service.ts';
import { withJoinedSignal } from '@cribus/host/joined-signals.ts';
import type { ImageStore } from './image-store.ts';
import type { WritableLayers } from './writable-layers.ts';

export interface Measuring {
  /** Measures until the service stops. */
  forEver(): Promise<void>;
  /**
   * Returns when everything was measured once, at once from then on, and after some seconds in any case:
   * then what is known is a part. Rejects with the signal's reason.
   */
  firstRound(signal: AbortSignal): Promise<void>;
}

const INTERVAL_MS = 5_000;
/** Half of what the verb has (subjects.ts, image-fs-info). */
const FIRST_ROUND_MS = 5_000;

export function createMeasuring(deps: {
  readonly service: Pick<Service, 'clock' | 'log' | 'stopping'>;
  readonly store: Pick<ImageStore, 'layers'>;
  readonly writableLayers: WritableLayers;
}): Measuring {
  const { store, writableLayers } = deps;
  const { clock, log, stopping } = deps.service;
  let measured = () => {};
  const first = new Promise<void>((resolve) => {
    measured = resolve;
  });
  return {
    async forEver() {
      while (!stopping.aborted) {
        try {
          // The layers of images are many more, and stay as they are.
          await writableLayers.measure();
          await store.layers.measure(stopping);
          measured();
        } catch (error) {
          if (stopping.aborted) return;
          log.warn({ err: error }, 'Layers could not be measured and are so later.');
        }
        await clock.sleep(INTERVAL_MS, stopping).catch(() => {});
      }
    },
    async firstRound(signal) {
      const over = new AbortController();
      await withJoinedSignal([signal, over.signal], (either) =>
        Promise.race([first, clock.sleep(FIRST_ROUND_MS, either)]).finally(() => over.abort()),
      );
    },
  };
}
