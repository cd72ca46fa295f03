// When a client may be taken to have said all, though its input has no end: what a forwarded connection
// is ended by that the pod has ended.

import type { Clock } from '@cribus/host/clock.ts';

/**
 * A client that still sends after the pod has said all is heard; one that was quiet for so long has
 * nothing more to say. containerd ends a forwarded connection as long after either end, heard or not.
 */
const QUIET_MS = 1_000;

export interface InputWatch {
  /** A piece came; while the worker can't take more, what waits is not known to be the last. */
  came(isHeld: boolean): void;
  drained(): void;
  /** Resolves when nothing has come for a second from now on, or soon after `isOver`. */
  quiet(isOver: () => boolean): Promise<void>;
}

export function watchInput(clock: Clock): InputWatch {
  let sinceMs = 0;
  let held = false;
  const note = (isHeld: boolean) => {
    sinceMs = clock.monotonicMs();
    held = isHeld;
  };
  return {
    came: note,
    drained: () => note(false),
    async quiet(isOver) {
      sinceMs = clock.monotonicMs();
      while (!isOver()) {
        const leftMs = held ? QUIET_MS : sinceMs + QUIET_MS - clock.monotonicMs();
        if (leftMs <= 0) return;
        await clock.sleep(leftMs);
      }
    },
  };
}
