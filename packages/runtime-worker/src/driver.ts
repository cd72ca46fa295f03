// The seam between the worker's kernel and one family of OCI runtimes: how its command line is
// spelled, what it changes in the OCI spec, what it supports, and how its failures read.

import type { HandlerConfig } from '@cribus/chassis/config.ts';
import type { Logger } from '@cribus/chassis/log.ts';
import type { Failure } from '@cribus/contracts/failure.ts';
import type { Clock } from '@cribus/host/clock.ts';
import type { Spec } from '@cribus/oci/spec.ts';
import type { HostFacts } from '@cribus/oci/spec-input.ts';

/** What the engine is asked to do; one method each on Engine. */
export type EngineOperation =
  | 'create'
  | 'start'
  | 'kill'
  | 'delete'
  | 'state'
  | 'wait'
  | 'exec'
  | 'ps'
  | 'update'
  | 'events'
  | 'port-forward';

/** How an engine command ended; `output` is what it said (stderr, or conmon's sync message). */
export interface EngineExit {
  readonly exitCode: number | undefined;
  readonly output: string;
}

/** As reported in HandlerStatus; probed, never assumed. */
export interface RuntimeFeatures {
  readonly recursiveReadOnlyMounts: boolean;
  readonly userNamespaces: boolean;
  readonly supplementalGroupsPolicy: boolean;
  readonly checkpoint: boolean;
  readonly hostNetwork: boolean;
  /** A pod may use the host's process ids and IPC. */
  readonly hostProcesses: boolean;
}

/** Which container a spec is for: a sandbox's own process, or a container of the pod. */
export interface SpecRole {
  readonly kind: 'sandbox-process' | 'container';
  readonly sandboxId: string;
  /** Of the CRI container; empty for a sandbox's process. */
  readonly name: string;
}

/**
 * `netns`: dialling localhost in the pod's network namespace. `engine`: a command of the engine.
 * `pod-address`: dialling the pod's own address from the host.
 */
export type PortForwardStrategy = 'netns' | 'engine' | 'pod-address';

/** Nearly pure data: what differs between families. */
export interface RuntimeDriver {
  readonly family: 'runc' | 'gvisor';
  /** Absolute path of the binary; for a missing engine what the configuration says. */
  readonly enginePath: string;
  readonly engineVersion: string;
  /** Why nothing can be created here, as a sentence; its existing containers stay listed. */
  readonly unavailable?: string;
  /** What runs in a lesser mode on this host. */
  readonly warnings: readonly string[];
  readonly features: RuntimeFeatures;
  /** What containers can't have with this engine, whatever the host has. Absent: nothing. */
  readonly restrictions?: Pick<
    HostFacts,
    'bidirectionalMounts' | 'ownCgroupFilesystem' | 'devicePaths' | 'hooks'
  >;
  /** Free words for verbose output, as platform=systrap. */
  readonly details: Readonly<Record<string, string>>;
  /** What is executed: the engine, or a wrapper around it. */
  readonly command: string;
  /** In front of the path of --log: crun wants `file:`. */
  readonly logPrefix: string;
  /** In front of every operation, without --root and --log. */
  readonly globalArgs: readonly string[];
  /** Newest OCI version it accepts. */
  readonly ociVersion: string;
  readonly sandboxModel: 'namespaces' | 'root-container';
  /** Whose word is the exit code: the monitor's exit file, or the engine's `wait`. */
  readonly exitSource: 'monitor' | 'wait';
  /** Who counts what a container uses: its cgroup, or the engine's `events --stats`. */
  readonly statsSource: 'cgroup' | 'engine';
  /**
   * What conmon runs in place of the engine for a container whose stdio the engine takes from
   * `start`: a wrapper that leaves relays to the monitor (relayed-stdio.ts). Absent: from `create`.
   */
  readonly relayingCreate?: string;
  /** How a signal reaches the container: straight to the host process, or by the engine. */
  readonly signalBy: 'process' | 'engine';
  /**
   * Who changes the limits of a container that runs: we, in its cgroup's files; the engine, where it
   * has systemd to tell; nobody, where only the pod is limited.
   */
  readonly limitsBy: 'cgroup' | 'engine' | 'nobody';
  /**
   * How a command is executed. `detached`: the engine ends once it runs, having given it our pipes or
   * sent us its terminal. `foreground`: the engine stays in front and ends with it, and gives it the
   * pipes or the terminal that it is started on.
   */
  readonly execMode: 'detached' | 'foreground';
  /** Ways to a port of a pod that has a network of its own, in the order in which they are tried. */
  readonly portForward: readonly PortForwardStrategy[];
  /** Below a scope of systemd's: the cgroup that the engine makes, limits and puts the processes into. */
  readonly scopeSubgroup?: string;
  /** Changes the spec in the family's way; pure. */
  amendSpec(spec: Spec, role: SpecRole): Spec;
  /** Further global arguments of one create; pure. */
  createArgs?(spec: Spec, role: SpecRole): readonly string[];
  /** The only place where an engine's words are matched. */
  classify(operation: EngineOperation, exit: EngineExit): Failure;
}

export interface DriverProbeOptions {
  readonly handler: string;
  readonly config: HandlerConfig;
  readonly cgroupDriver: 'cgroupfs' | 'systemd';
  /** Kept over a reboot: results of slow trials. */
  readonly directory: string;
  /** Gone at a reboot: generated wrappers, trial containers. */
  readonly runDirectory: string;
  readonly engineRoot: string;
  readonly clock: Clock;
  readonly log: Logger;
  readonly signal: AbortSignal;
}

/** Finds the engine and what it can do. Raises unavailable naming the path when it is not there. */
export type DriverProbe = (options: DriverProbeOptions) => Promise<RuntimeDriver>;
