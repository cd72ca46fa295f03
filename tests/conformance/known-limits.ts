// The specs of critest that can't pass, each with what keeps it from passing: something that this
// kind of host lacks, or something that an OCI runtime can't do. A limit of runsc has the bare command
// that shows it, which the suite runs (tests/e2e/gvisor-limits.test.ts). A failed spec that isn't here
// is a fault of ours.

import type { Handler } from './arguments.ts';
import type { SpecResult } from './junit.ts';

export interface KnownLimit {
  /** In the docs and in test titles. */
  readonly id: string;
  readonly handlers: readonly Handler[];
  /** Of the specs' names. */
  readonly specs: RegExp;
  readonly outcome: 'failed' | 'skipped';
  /** One sentence. */
  readonly reason: string;
  /** For limits of runsc: what the bare command shows, by its name in gvisor-limits.ts. */
  readonly shownBy?: string;
}

export const KNOWN_LIMITS: readonly KnownLimit[] = [
  {
    id: 'no-apparmor',
    handlers: ['runc', 'crun', 'gvisor'],
    specs: /^AppArmor /,
    outcome: 'skipped',
    reason: "AppArmor isn't in this kernel (no /sys/kernel/security/apparmor).",
  },
];

/** What keeps a spec that did not pass from passing; undefined where nothing is known. */
export function limitOf(handler: Handler, result: SpecResult): KnownLimit | undefined {
  return KNOWN_LIMITS.find(
    (limit) =>
      limit.outcome === result.outcome &&
      limit.handlers.includes(handler) &&
      limit.specs.test(result.name),
  );
}
