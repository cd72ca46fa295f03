// The way from a directory to a running stack: lock, ports, credentials, network, configuration,
// parts. Used by `up`, and by whatever needs the stack for a moment.

import { existsSync } from 'node:fs';
import { chmod, mkdir } from 'node:fs/promises';
import { dirname } from 'node:path';
import type { Config } from '@cribus/chassis/config.ts';
import { Failure } from '@cribus/contracts/failure.ts';
import { detectCgroups } from '@cribus/host/cgroups.ts';
import { isErrno } from '@cribus/host/errno.ts';
import { bringLoopbackUp } from '../network/loopback.ts';
import { provideNetwork } from '../network/provide-network.ts';
import { provideConfiguration } from './generated.ts';
import type { Stack } from './open-stack.ts';
import { readLivingParts } from './part-state.ts';
import { planParts } from './parts.ts';
import { type Readiness, waitUntilReady } from './ready.ts';
import { supervise } from './supervisor.ts';
import { refuseUnderUnits } from './units.ts';
import { findUp, takeUpLock, type UpLock } from './up-lock.ts';

export interface BringUpOptions {
  readonly stack: Stack;
  readonly natsUrl: string | undefined;
  readonly redisUrl: string | undefined;
  readonly say: (line: string) => void;
  /** For its parts to be ready; half a minute where it is left out. */
  readonly readyTimeoutMs?: number;
  readonly signal: AbortSignal;
}

export interface RunningStack {
  readonly config: Config;
  readonly readiness: Readiness;
  /** Stops every part in order; nobody else can start the stack before `release`. */
  stop(): Promise<void>;
  release(): void;
}

/**
 * Starts the stack and waits until it is ready. Raises wrong_state when another `up` or systemd has it;
 * on any failure whatever was started is stopped again.
 */
export async function bringUp(options: BringUpOptions): Promise<RunningStack> {
  const { stack } = options;
  await refuseUnderUnits(stack);
  refuseUnfitCgroups(stack.config);
  await makeDirectories(stack);
  const lock = await takeUpLock(stack.paths.roots);
  if (lock === undefined) throw await alreadyUp(stack);
  try {
    return await startAll(options, lock);
  } catch (error) {
    lock.close();
    throw error;
  }
}

async function startAll(options: BringUpOptions, lock: UpLock): Promise<RunningStack> {
  const { stack, natsUrl, redisUrl, say, signal } = options;
  await bringLoopbackUp({ say, signal });
  const living = await readLivingParts(stack.paths.roots);
  const { config, sources, moved } = await provideConfiguration({
    ...{ stack, natsUrl, redisUrl, living, signal },
    network: () => provideNetwork({ stack, say, signal }),
  });
  if (moved.length > 0) say(`Somebody else uses the old port of ${moved.join(', ')}: chose anew.`);
  const plans = await planParts(sources).catch(explainMissingBundle);
  signal.throwIfAborted();
  const supervisor = await supervise({ roots: stack.paths.roots, plans, living, say });
  try {
    const readiness = await waitUntilReady({
      socket: config.gateway.socket,
      metricsAddress: config.metrics.address,
      logDirectory: config.roots.log,
      states: supervisor.states,
      timeoutMs: options.readyTimeoutMs,
      signal,
    });
    await lock.announce(true);
    return { config, readiness, stop: supervisor.stop, release: lock.close };
  } catch (error) {
    await supervisor.stop();
    throw error;
  }
}

/** Containers and engines pass through run and state by path, so these can be entered, not listed. */
export async function makeDirectories(stack: Stack): Promise<void> {
  const { run, state, etc, log } = stack.paths.roots;
  const modes = [
    { path: etc, mode: 0o755 },
    { path: run, mode: 0o711 },
    { path: state, mode: 0o711 },
    { path: log, mode: 0o750 },
  ];
  try {
    if (stack.directory !== undefined) await makeWithParents(stack.directory);
    for (const { path, mode } of modes) {
      await mkdir(path, { recursive: true, mode });
      if (path !== etc) await chmod(path, mode);
    }
  } catch (error) {
    throw unusable(stack, error);
  }
}

/** A directory that can't be made is a person's choice of a place. */
function unusable({ directory }: Stack, error: unknown): unknown {
  if (!isErrno(error, 'ENOENT', 'ENOTDIR', 'EROFS', 'EACCES', 'EPERM', 'ENOSPC', 'EDQUOT')) {
    return error;
  }
  const where = directory === undefined ? 'the directories of the stack' : `--root ${directory}`;
  const why = error instanceof Error ? error.message : String(error);
  return new Failure('invalid_argument', `${where} can't be used: ${why}`);
}

/** Else every service would fail for it, one after another. */
function refuseUnfitCgroups({ cgroups }: Config): void {
  // sd_booted(3) looks there.
  if (cgroups.driver === 'systemd' && !existsSync('/run/systemd/system')) {
    throw new Failure(
      'wrong_state',
      'cgroups.driver is "systemd", and no systemd runs here: set it to "cgroupfs"',
    );
  }
  try {
    detectCgroups();
  } catch (error) {
    if (!isErrno(error, 'ENODEV')) throw error;
    throw new Failure(
      'wrong_state',
      'no cgroup is mounted at /sys/fs/cgroup; "ip netns exec" hides it, so enter a network ' +
        'namespace with nsenter --net=FILE',
    );
  }
}

/** One by one: Node's own recursion never ends where making one says ENOENT, as below /proc. */
async function makeWithParents(directory: string): Promise<void> {
  const missing: string[] = [];
  for (let path = directory; !existsSync(path); path = dirname(path)) missing.push(path);
  for (const path of missing.reverse()) {
    await mkdir(path, { mode: 0o755 }).catch((error: unknown) => {
      if (!isErrno(error, 'EEXIST')) throw error;
    });
  }
}

async function alreadyUp(stack: Stack): Promise<Failure> {
  const holder = await findUp(stack.paths.roots);
  const who = holder === undefined ? 'another cribus' : `pid ${holder.identity.pid}`;
  return new Failure(
    'wrong_state',
    `this stack is up already (${who} holds ${stack.paths.roots.run}/up.lock): stop it with ` +
      '"cribus down" first',
  );
}

function explainMissingBundle(error: unknown): never {
  if (!isErrno(error, 'ENOENT')) throw error;
  throw new Failure('wrong_state', 'a service is not built: run npm run setup first', {
    cause: error,
  });
}
