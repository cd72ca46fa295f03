// The driver of runc and of crun, which share a command line.

import { chmod } from 'node:fs/promises';
import { join } from 'node:path';
import { Failure } from '@cribus/contracts/failure.ts';
import { detectCgroups } from '@cribus/host/cgroups.ts';
import { writeFileAtomic } from '@cribus/host/files.ts';
import { withJoinedSignal } from '@cribus/host/joined-signals.ts';
import { listMounts } from '@cribus/host/mounts.ts';
import { run } from '@cribus/host/spawn.ts';
import type { Spec } from '@cribus/oci/spec.ts';
import { type CheckpointAbility, probeCheckpoint } from '@cribus/runtime-worker/checkpoint/criu.ts';
import type {
  DriverProbe,
  EngineExit,
  EngineOperation,
  RuntimeDriver,
} from '@cribus/runtime-worker/driver.ts';
import { findEngine, readableOutput, versionOf } from '@cribus/runtime-worker/engine-binary.ts';
import { whyNoUserNamespaces } from '@cribus/runtime-worker/idmap-trial.ts';

const PROBE_BUDGET_MS = 10_000;

/** What `runc features` prints (runtime-spec, features.md), as far as we read it. */
interface EngineFeatures {
  readonly ociVersionMax?: string;
  readonly mountOptions?: readonly string[];
  readonly linux?: {
    readonly namespaces?: readonly string[];
    readonly mountExtensions?: { readonly idmap?: { readonly enabled?: boolean } };
  };
  readonly annotations?: Readonly<Record<string, string>>;
}

export type Flavour = 'runc' | 'crun';

/** Which of the two a binary is, from `--version`; unknown ones are spoken to like runc. */
export function flavourOf(versionText: string): Flavour {
  return /^crun version/m.test(versionText) ? 'crun' : 'runc';
}

/** Reads `features`; an engine that doesn't know the command (runc before 1.1, crun 1.8) has none. */
export function parseFeatures(stdout: string): EngineFeatures {
  try {
    return JSON.parse(stdout) as EngineFeatures;
  } catch (error) {
    if (error instanceof SyntaxError) return {};
    throw error;
  }
}

/** Finds the engine, its version and features, and makes crun's wrapper where it needs one. */
export const probeRunc: DriverProbe = async (options) => {
  const enginePath = findEngine(options.config.engine);
  const { directory } = options;
  const limits = [options.signal, options.clock.timeout(PROBE_BUDGET_MS)];
  const [version, features, noUserNamespaces] = await withJoinedSignal(limits, (signal) =>
    Promise.all([
      run({ command: enginePath, args: ['--version'], signal }),
      run({ command: enginePath, args: ['features'], signal }),
      whyNoUserNamespaces({ directory, signal }),
    ]),
  );
  const versionText = version.stdout.toString('utf8');
  if (version.exitCode !== 0) {
    throw new Failure('unavailable', `${enginePath} --version failed: ${version.stderr}`);
  }
  const flavour = flavourOf(versionText);
  const wrapper = flavour === 'crun' ? hybridMount() : undefined;
  const command =
    wrapper === undefined
      ? enginePath
      : await writeWrapper(join(options.runDirectory, 'engine-v1'), enginePath);
  const withoutCriu = flavour === 'crun' && !/\+CRIU/.test(versionText);
  const checkpoints = await probeCheckpoint({
    clock: options.clock,
    signal: options.signal,
    ...(withoutCriu ? { engineLacks: `${enginePath} was built without criu` } : {}),
  });
  return describeDriver({
    enginePath,
    command,
    flavour,
    checkpoints,
    version: versionOf(versionText),
    features: parseFeatures(features.exitCode === 0 ? features.stdout.toString('utf8') : ''),
    systemd: options.cgroupDriver === 'systemd',
    cgroupVersion: detectCgroups().version,
    extraArgs: options.config.extra_args,
    noUserNamespaces,
  });
};

interface Probed {
  readonly enginePath: string;
  readonly command: string;
  readonly flavour: Flavour;
  readonly checkpoints: CheckpointAbility;
  readonly version: string;
  readonly features: EngineFeatures;
  readonly systemd: boolean;
  readonly cgroupVersion: 'v1' | 'v2';
  readonly extraArgs: readonly string[];
  /** Why this host can't; undefined where it can. */
  readonly noUserNamespaces?: string | undefined;
}

/** The driver as data. */
export function describeDriver(probed: Probed): RuntimeDriver {
  const subgroup = probed.flavour === 'crun' && probed.systemd && probed.cgroupVersion === 'v2';
  return {
    family: 'runc',
    enginePath: probed.enginePath,
    engineVersion: probed.version,
    warnings:
      probed.noUserNamespaces === undefined
        ? []
        : [`this host can't run pods with a user namespace: ${probed.noUserNamespaces}`],
    features: {
      recursiveReadOnlyMounts: mountsRecursivelyReadOnly(probed),
      // The worker maps layers and volumes itself, whatever the engine can.
      userNamespaces: probed.noUserNamespaces === undefined,
      supplementalGroupsPolicy: true,
      checkpoint: probed.checkpoints.possible,
      hostProcesses: true,
      hostNetwork: true,
    },
    details: { engine: probed.flavour, checkpoint: probed.checkpoints.words },
    command: probed.command,
    // crun takes what stands before a colon for a kind of log.
    logPrefix: probed.flavour === 'crun' ? 'file:' : '',
    globalArgs: [
      '--log-format',
      'json',
      ...(probed.systemd ? ['--systemd-cgroup'] : []),
      ...probed.extraArgs,
    ],
    ociVersion: '1.0.2',
    sandboxModel: 'namespaces',
    exitSource: 'monitor',
    statsSource: 'cgroup',
    signalBy: 'process',
    execMode: 'detached',
    portForward: ['netns'],
    limitsBy: probed.systemd ? 'engine' : 'cgroup',
    ...(subgroup ? { scopeSubgroup: CRUN_SUBGROUP } : {}),
    amendSpec: subgroup ? withSubgroup : (spec) => spec,
    classify,
  };
}

/**
 * Below a systemd scope crun limits a cgroup of its own on cgroup v2, so that a reload of systemd, which
 * crun tells of no limit, resets none (crun.1, run.oci.systemd.subgroup). Said in words, as it is a
 * default that could change.
 */
const CRUN_SUBGROUP = 'container';

function withSubgroup(spec: Spec): Spec {
  return {
    ...spec,
    annotations: { ...spec.annotations, 'run.oci.systemd.subgroup': CRUN_SUBGROUP },
  };
}

/** crun knows `rro` since 1.4 (its pull request 778), long before it has a `features` command. */
function mountsRecursivelyReadOnly({ features, flavour, version }: Probed): boolean {
  if (features.mountOptions !== undefined) return features.mountOptions.includes('rro');
  const [major = 0, minor = 0] = version.split('.').map(Number);
  return flavour === 'crun' && (major > 1 || (major === 1 && minor >= 4));
}

/** Words of runc (libcontainer) and crun, in the order in which they are looked for. */
const WORDS: readonly (readonly [
  RegExp,
  'not_found' | 'wrong_state' | 'limit' | 'already_exists',
])[] = [
  [
    /container does not exist|error opening file.*status|cannot open directory.*No such file|No such container/i,
    'not_found',
  ],
  [
    /container not running|process already finished|cannot start|not in the created state/i,
    'wrong_state',
  ],
  [/container with id exists|already exists/i, 'already_exists'],
  [
    /no space left on device|disk quota exceeded|cannot allocate memory|resource temporarily unavailable/i,
    'limit',
  ],
];

/** A command that can't be executed is the request's fault whatever the state: invalid_argument. */
const BAD_COMMAND =
  /executable file not found|no such file or directory|permission denied|is a directory|exec format error|chdir to cwd/i;

export function classify(operation: EngineOperation, exit: EngineExit): Failure {
  const message = readableOutput(exit.output) || `ended with code ${exit.exitCode ?? 'unknown'}`;
  const details = { stage: `engine ${operation}` };
  const looksBad = BAD_COMMAND.test(message);
  if (operation === 'exec' && looksBad) return new Failure('invalid_argument', message, details);
  if (operation === 'update') {
    // runc names a limit below what is in use, crun only the kernel's words.
    const inUse = /unable to set memory limit|resource busy|below current usage/i.test(message);
    const refused = /invalid argument|out of range|permission denied|too large/i.test(message);
    if (inUse) return new Failure('wrong_state', message, details);
    if (refused) return new Failure('invalid_argument', message, details);
  }
  if (operation !== 'create') {
    for (const [words, kind] of WORDS) {
      if (words.test(message)) return new Failure(kind, message, details);
    }
  }
  if (/no space left on device|disk quota exceeded/i.test(message)) {
    return new Failure('limit', message, details);
  }
  if ((operation === 'create' || operation === 'start') && looksBad) {
    return new Failure('invalid_argument', message, details);
  }
  return new Failure('kubelet_reason', message, details);
}

const UNIFIED = '/sys/fs/cgroup/unified';

/** On a hybrid host, where a v2 mount beside v1's confuses crun. */
function hybridMount(): string | undefined {
  const mounts = listMounts();
  const v1 = mounts.some((mount) => mount.filesystem === 'cgroup');
  return v1 && mounts.some((mount) => mount.mountPoint === UNIFIED) ? UNIFIED : undefined;
}

/**
 * crun in a mount namespace without the v2 mount. Only the cgroup mounts become private, so that
 * the host's later mounts still arrive, and propagation to the host works.
 */
async function writeWrapper(path: string, enginePath: string): Promise<string> {
  const quoted = `'${enginePath.replaceAll("'", `'\\''`)}'`;
  const inside = [
    'mount --make-private /sys/fs/cgroup',
    `mount --make-private ${UNIFIED}`,
    `umount ${UNIFIED}`,
    'exec "$@"',
  ].join(' && ');
  await writeFileAtomic(
    path,
    `#!/bin/sh\nexec unshare -m --propagation unchanged sh -c '${inside}' sh ${quoted} "$@"\n`,
    { mode: 0o700 },
  );
  await chmod(path, 0o700);
  return path;
}
