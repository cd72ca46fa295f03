// What this host can't give to containers, in sentences for the verbose Status and `cribus status`.

import { CAPABILITIES } from '@cribus/oci/capabilities.ts';
import type { HostFacts } from '@cribus/oci/spec-input.ts';

/** The lowest value that there is (proc(5), oom_score_adj). */
const OOM_SCORE_ADJ_MIN = -1000;

/** A sentence for each thing that is missing, with what follows from it. */
export function hostLacks(facts: HostFacts): string[] {
  const lacks: string[] = [];
  if (facts.oomScoreAdjFloor > OOM_SCORE_ADJ_MIN) {
    lacks.push(
      `this host refuses an oom_score_adj below ${facts.oomScoreAdjFloor}; a container that asks for less gets ${facts.oomScoreAdjFloor}`,
    );
  }
  const missing = CAPABILITIES.filter((name) => !facts.capabilities.includes(name));
  if (missing.length > 0) {
    lacks.push(`this host withholds ${missing.join(', ')}, also from privileged containers`);
  }
  if (!facts.seccomp) lacks.push('this kernel has no seccomp; profiles are not applied');
  if (!facts.appArmor && !facts.selinux) {
    lacks.push('this host has neither AppArmor nor SELinux to confine containers');
  }
  if (facts.swapAccounting === false) {
    lacks.push('this kernel does not account for swap; limits of memory and swap are not applied');
  }
  return lacks;
}
