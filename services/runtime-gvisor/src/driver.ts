// The driver of runsc: one Sentry per pod, which is the sandbox's root container, and the pod's
// containers inside it.

import { statSync } from 'node:fs';
import { release } from 'node:os';
import { join } from 'node:path';
import { Failure } from '@cribus/contracts/failure.ts';
import { withJoinedSignal } from '@cribus/host/joined-signals.ts';
import { run } from '@cribus/host/spawn.ts';
import type { Spec } from '@cribus/oci/spec.ts';
import type {
  DriverProbe,
  EngineExit,
  EngineOperation,
  PortForwardStrategy,
  RuntimeDriver,
  SpecRole,
} from '@cribus/runtime-worker/driver.ts';
import { findEngine, readableOutput, versionOf } from '@cribus/runtime-worker/engine-binary.ts';
import { writeRelayingCreate } from '@cribus/runtime-worker/relayed-stdio.ts';
import { findWorkingMode, type Mode } from './trial.ts';

const PROBE_BUDGET_MS = 10_000;

/** Finds runsc, its version, and by trial the platform and network that run on this host. */
export const probeGvisor: DriverProbe = async (options) => {
  const enginePath = findEngine(options.config.engine);
  const limits = [options.signal, options.clock.timeout(PROBE_BUDGET_MS)];
  const [version, flags, help] = await withJoinedSignal(limits, (signal) =>
    Promise.all([
      run({ command: enginePath, args: ['--version'], signal }),
      run({ command: enginePath, args: ['flags'], signal }),
      run({ command: enginePath, args: ['help'], signal }),
    ]),
  );
  if (version.exitCode !== 0) {
    throw new Failure('unavailable', `${enginePath} --version failed: ${version.stderr}`);
  }
  const known = `${flags.stdout}\n${flags.stderr}`;
  const args = [...commonArgs(known), ...options.config.extra_args];
  const engine = statSync(enginePath);
  const mode = await findWorkingMode({
    enginePath,
    args,
    platform: options.config.platform,
    network: options.config.network,
    cacheKey: [enginePath, engine.size, engine.mtimeMs, release(), args.join(' ')].join('|'),
    cacheFile: join(options.directory, 'trial.json'),
    directory: options.runDirectory,
    signal: options.signal,
    clock: options.clock,
    log: options.log,
  });
  return describeDriver({
    enginePath,
    relayingCreate: await writeRelayingCreate(options.runDirectory, enginePath),
    version: versionOf(version.stdout.toString('utf8')),
    mode,
    args: [...args, ...(options.cgroupDriver === 'systemd' ? ['--systemd-cgroup'] : [])],
    networkSetting: options.config.network,
    commands: commandsOf(`${help.stdout}\n${help.stderr}`),
  });
};

/** The names in the list that `runsc help` prints. */
export function commandsOf(help: string): string[] {
  return [...help.matchAll(/^\t(\S+)\s/gm)].map((match) => match[1] ?? '');
}

/**
 * What every command gets, of the flags that this release knows. Without an overlay of its own in
 * the Sentry, what a container writes is in its writable layer, where its size is counted.
 */
export function commonArgs(flags: string): string[] {
  const known = (name: string) => new RegExp(`^\\s+-${name}\\b`, 'm').test(flags);
  return [
    ...(known('overlay2') ? ['--overlay2=none'] : []),
    // Else a seccomp profile is ignored without a word.
    ...(known('oci-seccomp') ? ['--oci-seccomp'] : []),
  ];
}

interface Probed {
  readonly enginePath: string;
  readonly relayingCreate: string;
  readonly version: string;
  readonly mode: Mode;
  readonly args: readonly string[];
  readonly networkSetting: 'auto' | 'sandbox' | 'host';
  readonly commands: readonly string[];
}

/**
 * Its own network stack has a loopback of its own, which nothing in the pod's network namespace
 * reaches: the engine does, and the pod's address for what listens on it.
 */
function portForwardWays({ mode, commands }: Probed): readonly PortForwardStrategy[] {
  if (mode.network === 'host') return ['netns'];
  return commands.includes('port-forward') ? ['engine', 'pod-address'] : ['pod-address'];
}

/** The driver as data. */
export function describeDriver(probed: Probed): RuntimeDriver {
  const { mode } = probed;
  const lesser = mode.network === 'host' && probed.networkSetting === 'auto';
  return {
    family: 'gvisor',
    enginePath: probed.enginePath,
    engineVersion: probed.version,
    warnings: lesser
      ? [
          `${probed.enginePath} (${probed.version}) can't run its own network stack on this host: pods use the host kernel's, in their own network namespace, which isolates less`,
        ]
      : [],
    features: {
      // The Sentry's mount of a volume is one, with all that the host has mounted below it.
      recursiveReadOnlyMounts: true,
      userNamespaces: false,
      supplementalGroupsPolicy: true,
      checkpoint: false,
      hostNetwork: true,
      // The Sentry has process ids and IPC of its own, and nothing of the host's.
      hostProcesses: false,
    },
    restrictions: {
      // What a container mounts is the Sentry's own.
      bidirectionalMounts: false,
      // The Sentry's, which knows nothing of the host's cgroups.
      ownCgroupFilesystem: true,
      devicePaths: SENTRY_DEVICES,
      hooks: ['prestart', 'createRuntime', 'poststart', 'poststop'],
    },
    details: { platform: mode.platform, network: mode.network },
    command: probed.enginePath,
    logPrefix: '',
    globalArgs: [
      '--log-format=json',
      `--platform=${mode.platform}`,
      `--network=${mode.network}`,
      ...probed.args,
    ],
    ociVersion: '1.0.2',
    sandboxModel: 'root-container',
    exitSource: 'wait',
    statsSource: 'engine',
    signalBy: 'engine',
    execMode: 'foreground',
    portForward: portForwardWays(probed),
    // A container inside the Sentry has no process of its own on the host (`runsc update` of releases
    // that have it writes to a cgroup without any).
    limitsBy: 'nobody',
    relayingCreate: probed.relayingCreate,
    amendSpec,
    // A pod in the host's network namespace can only use the host's stack.
    createArgs: (spec, role) =>
      role.kind === 'sandbox-process' && !hasNetworkNamespace(spec) ? ['--network=host'] : [],
    classify,
  };
}

function hasNetworkNamespace(spec: Spec): boolean {
  return spec.linux.namespaces.some((namespace) => namespace.type === 'network');
}

/**
 * Capabilities younger than the Sentry's kernel (capabilities(7): Linux 5.8 and 5.9). Nothing in there
 * asks for them, and Debian's runsc refuses a specification that names one.
 */
const UNKNOWN_CAPABILITIES = ['CAP_PERFMON', 'CAP_BPF', 'CAP_CHECKPOINT_RESTORE'];

/** What is in the /dev of every container (gVisor, runsc/boot/vfs.go); other nodes are not made. */
const SENTRY_DEVICES = ['null', 'zero', 'full', 'random', 'urandom', 'tty', 'fuse', 'net/tun'].map(
  (name) => `/dev/${name}`,
);

/**
 * Labels and profiles of the host's security modules mean nothing inside the Sentry, and runsc
 * refuses SELinux' ones. The pod's containers share the Sentry's namespaces.
 */
export function amendSpec(spec: Spec, _role: SpecRole): Spec {
  const { apparmorProfile: _profile, selinuxLabel: _label, ...process } = spec.process;
  const { mountLabel: _mountLabel, ...linux } = spec.linux;
  const known = (names: readonly string[]) =>
    names.filter((name) => !UNKNOWN_CAPABILITIES.includes(name));
  const { bounding, effective, inheritable, permitted, ambient } = process.capabilities;
  const capabilities = {
    bounding: known(bounding),
    effective: known(effective),
    inheritable: known(inheritable),
    permitted: known(permitted),
    ambient: known(ambient),
  };
  // A mount that is read-only is so with all below it, and there is no word for that.
  const mounts = spec.mounts.map((mount) => ({
    ...mount,
    options: mount.options.filter((option) => option !== 'rro'),
  }));
  return { ...spec, process: { ...process, capabilities }, mounts, linux };
}

/** Words of runsc, in the order in which they are looked for. */
const WORDS: readonly (readonly [RegExp, 'not_found' | 'wrong_state' | 'limit'])[] = [
  [
    /does not exist|not found|no such container|loading container|file does not exist/i,
    'not_found',
  ],
  [/connection refused|sandbox is not running|urpc method .* failed: EOF/i, 'not_found'],
  [/not running|cannot (start|signal|kill|exec)|stopped|no such process/i, 'wrong_state'],
  [/no space left on device|cannot allocate memory/i, 'limit'],
];

/** What runsc refuses by design, before it makes anything. */
const REFUSED = /mount propagation option must specify/;

const BAD_COMMAND =
  /executable file not found|no such file or directory|permission denied|is a directory|exec format error|failed to load|error finding executable/i;

/** The only place where runsc's words are matched. */
export function classify(operation: EngineOperation, exit: EngineExit): Failure {
  const message = readableOutput(exit.output) || `ended with code ${exit.exitCode ?? 'unknown'}`;
  const details = { stage: `engine ${operation}` };
  const runs = operation === 'create' || operation === 'start' || operation === 'exec';
  if (REFUSED.test(message)) return new Failure('unsupported', message, details);
  if (runs && BAD_COMMAND.test(message)) return new Failure('invalid_argument', message, details);
  for (const [words, kind] of WORDS) {
    if (operation === 'create' && kind !== 'limit') continue;
    if (words.test(message)) return new Failure(kind, message, details);
  }
  return new Failure('kubelet_reason', message, details);
}
