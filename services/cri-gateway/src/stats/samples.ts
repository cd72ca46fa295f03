// The last samples of every object, as its owner gave them: enough to tell what it uses now, and how
// fast.

import type {
  CgroupUsage,
  ContainerUsage,
  SandboxUsage,
} from '@cribus/contracts/gen/node/v1/records.ts';

/** Two readings nearer than this tell no rate: clocks and counters are too coarse. */
const RATE_NS_MIN = 200_000_000n;
/** A reading that follows sooner replaces the last one, and leaves the one before it for the rate. */
const STEP_NS_MIN = 400_000_000n;

interface Usage {
  readonly cgroup?: CgroupUsage | undefined;
}

/** What is known of one object. */
export interface Sample<U extends Usage> {
  readonly latest: U;
  /** An earlier reading, for rates. */
  readonly before?: CgroupUsage;
  /** The last one that was taken with details. */
  readonly detailed?: U;
}

export type ContainerSample = Sample<ContainerUsage>;
export type SandboxSample = Sample<SandboxUsage>;

/** The sample that follows from the last one and a new reading. */
export function nextSample<U extends Usage>(last: Sample<U> | undefined, usage: U): Sample<U> {
  const detailed = usage.cgroup?.details === undefined ? last?.detailed : usage;
  const kept = detailed === undefined ? {} : { detailed };
  const old = last?.latest.cgroup;
  const now = usage.cgroup;
  if (old === undefined || now === undefined) return { latest: usage, ...kept };
  // The counters begin anew with another run of the same container.
  if ((now.cpuNs ?? 0n) < (old.cpuNs ?? 0n)) return { latest: usage, ...kept };
  const tookNs = now.sampledAtNs - old.sampledAtNs;
  const before = tookNs >= STEP_NS_MIN ? old : (last?.before ?? old);
  return { latest: usage, before, ...kept };
}

/** Nanoseconds of processor time per second; undefined before a second reading. */
export function nanoCores(sample: Sample<Usage>): bigint | undefined {
  const now = sample.latest.cgroup;
  const { before } = sample;
  if (now?.cpuNs === undefined || before?.cpuNs === undefined) return undefined;
  const tookNs = now.sampledAtNs - before.sampledAtNs;
  if (tookNs < RATE_NS_MIN) return undefined;
  return ((now.cpuNs - before.cpuNs) * 1_000_000_000n) / tookNs;
}
