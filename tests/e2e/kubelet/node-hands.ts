// What the parts of the played kubelet have in common: whom they ask, where they keep things, and
// where they write down what they did.

import type { KubeletClient } from './client-checks.ts';
import type { NodePaths } from './manifest.ts';

export interface NodeHands {
  readonly client: KubeletClient;
  readonly paths: NodePaths;
  /** What was done, in order, as `start web/main 0`. */
  readonly done: string[];
  /** What no runtime may answer. */
  readonly faults: string[];
}

/** The kubelet's minimumGracePeriodInSeconds. */
export const GRACE_MIN_S = 2;
