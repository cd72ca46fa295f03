// What this process and this host may do at most.
import { readFileSync } from 'node:fs';

/** By number, from <linux/capability.h>. */
const CAP_SYS_RESOURCE = 24n;
/** OOM_SCORE_ADJ_MIN of <linux/oom.h>. */
const OOM_SCORE_ADJ_MIN = -1000;

/**
 * Which of some capabilities, named in the order of the kernel's numbers, our own bounding set has:
 * "all capabilities" can mean no more.
 */
export function boundingCapabilities(byNumber: readonly string[]): string[] {
  const bits = capabilityBits('CapBnd');
  return byNumber.filter((_, number) => (bits >> BigInt(number)) & 1n);
}

/** Lowest oom_score_adj we may set for a child: our own without CAP_SYS_RESOURCE, else -1000. */
export function oomScoreAdjFloor(): number {
  if ((capabilityBits('CapEff') >> CAP_SYS_RESOURCE) & 1n) return OOM_SCORE_ADJ_MIN;
  return Number(readFileSync('/proc/self/oom_score_adj', 'latin1'));
}

function capabilityBits(set: 'CapBnd' | 'CapEff'): bigint {
  const status = readFileSync('/proc/self/status', 'latin1');
  const digits = new RegExp(`^${set}:\\s*([0-9a-f]+)`, 'm').exec(status)?.[1] ?? '0';
  return BigInt(`0x${digits}`);
}
