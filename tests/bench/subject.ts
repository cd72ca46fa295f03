// What is measured: something that runs pods, reached over a CRI socket or by direct calls.

import type { connectCri, Method, RequestOfMethod } from '../e2e/harness/cri.ts';

export interface Subject {
  readonly name: string;
  readonly cri: Cri;
  /** The image by the reference that this one pulled. */
  readonly image: string;
  /** cgroup_parent of its pods, which is there already, as a kubelet would have made it. */
  readonly cgroupParent: string;
  /** Everything that runs for it but the workload and pause processes: pids. */
  processes(): Promise<readonly number[]>;
  /** Ends it wholly; pods have been removed. */
  stop(): Promise<void>;
}

export type Cri = ReturnType<typeof connectCri>;
export type { Method, RequestOfMethod };

/** Times one piece of work, in milliseconds. */
export async function timed(work: () => Promise<unknown>): Promise<number> {
  const startMs = performance.now();
  await work();
  return performance.now() - startMs;
}
