// The specs of critest that can't pass, each with what keeps it from passing: something that this
// kind of host lacks, or something that an OCI runtime can't do. A limit of runsc names the bare
// command that shows it. A failed spec that isn't here is a fault of ours.

import type { Handler } from './arguments.ts';
import type { EngineLimitName } from './gvisor-limits.ts';
import type { SpecResult } from './junit.ts';

export interface KnownLimit {
  readonly handlers: readonly Handler[];
  /** Matches names of specs. */
  readonly specs: RegExp;
  readonly outcome: 'failed' | 'skipped';
  /** One sentence. */
  readonly reason: string;
  readonly shownBy?: EngineLimitName;
}

export const KNOWN_LIMITS: readonly KnownLimit[] = [
  {
    handlers: ['runc', 'crun', 'gvisor'],
    specs: /^AppArmor /,
    outcome: 'skipped',
    reason: "AppArmor isn't in the kernel of this host.",
  },
  ofRunsc({
    specs: /^AppArmor /,
    reason: 'runsc ignores AppArmor profiles, so a Localhost one is refused.',
    shownBy: 'no-apparmor',
  }),
  ofRunsc({
    specs: /mount propagation mount with 'rshared'/,
    reason: 'runsc refuses shared propagation: no mount made inside a Sentry reaches the host.',
    shownBy: 'shared-propagation',
  }),
  ofRunsc({
    specs: /should support non-recursive readonly mounts/,
    reason: "runsc's read-only mounts are so with all that is mounted below them.",
    shownBy: 'read-only-is-recursive',
  }),
  ofRunsc({
    specs: /should terminate with exitCode 137 and reason OOMKilled/,
    reason: 'Containers inside one Sentry have no memory limit of their own, only the pod has one.',
    shownBy: 'no-memory-limit-in-a-sentry',
  }),
  ofRunsc({
    specs: /should support (?:un)?safe sysctls/,
    reason: "The Sentry's kernel has few sysctls, and these aren't among them.",
    shownBy: 'few-sysctls',
  }),
  ofRunsc({
    specs: /runtime should support HostPID/,
    reason: "A Sentry has process ids of its own; a pod that asks for the host's is refused.",
    shownBy: 'own-process-ids',
  }),
  ofRunsc({
    specs: /runtime should support HostIpc is true/,
    reason: "A Sentry has IPC of its own; a pod that asks for the host's is refused.",
    shownBy: 'own-ipc',
  }),
  ofRunsc({
    specs: /runtime should support HostNetwork is true/,
    reason: "In the host's network a Sentry lists its own sockets only.",
    shownBy: 'sockets-of-the-host-unseen',
  }),
  ofRunsc({
    specs: /should allow privilege escalation when false/,
    reason: 'This runsc ignores the set-uid bit.',
    shownBy: 'no-set-uid',
  }),
  ofRunsc({
    specs:
      /SeccompProfilePath .*(?:blocks setting hostname with SYS_ADMIN|seccomp default on the container|seccomp localhost profile on the container)/,
    reason: 'runsc filters the container itself, not what is executed in it, which the spec does.',
    shownBy: 'exec-without-seccomp',
  }),
  ofRunsc({
    specs: /runtime should support MaskedPaths/,
    reason: 'runsc ignores masked paths.',
    shownBy: 'no-masked-paths',
  }),
  ofRunsc({
    specs: /runtime should support ReadonlyPaths/,
    reason: 'runsc ignores read-only paths.',
    shownBy: 'no-read-only-paths',
  }),
  ofRunsc({
    specs: /runtime should support (?:Privileged is true|adding capability)$/,
    reason: 'The Sentry has no bridges, which the spec makes with the capability.',
    shownBy: 'no-bridges',
  }),
  ofRunsc({
    specs: /runtime should support dropping capability$/,
    reason:
      "With the host's network stack there are no raw sockets at all, so ping fails otherwise.",
    shownBy: 'no-raw-sockets',
  }),
  {
    ...ofRunsc({
      specs: /^Security Context UserNamespaces /,
      reason: 'runsc ignores the mappings of a user namespace, so none is advertised.',
      shownBy: 'no-user-namespaces',
    }),
    outcome: 'skipped',
  },
];

/** What no spec of critest asks for on a host without AppArmor. */
export const LIMITS_BEYOND_CRITEST: readonly {
  readonly what: string;
  readonly reason: string;
  readonly shownBy: EngineLimitName;
}[] = [
  {
    what: 'CheckpointContainer',
    reason:
      'runsc saves a whole Sentry, whichever container is named, and ends it; refused as unsupported.',
    shownBy: 'checkpoint-ends-the-pod',
  },
  {
    what: 'AppArmor profiles',
    reason:
      'runsc ignores them, also one that does not exist; a Localhost one is refused as unsupported.',
    shownBy: 'no-apparmor',
  },
  {
    what: 'Ending all of a command',
    reason:
      'A time-out ends what is below the command; what left it before, as a daemon does, is no longer told apart.',
    shownBy: 'orphans-are-nobodys',
  },
];

function ofRunsc(limit: {
  readonly specs: RegExp;
  readonly reason: string;
  readonly shownBy: EngineLimitName;
}): KnownLimit {
  return { handlers: ['gvisor'], outcome: 'failed', ...limit };
}

/** What keeps a spec that did not pass from passing; undefined where nothing is known. */
export function limitOf(handler: Handler, result: SpecResult): KnownLimit | undefined {
  return KNOWN_LIMITS.find(
    (limit) =>
      limit.outcome === result.outcome &&
      limit.handlers.includes(handler) &&
      limit.specs.test(result.name),
  );
}
