// How an end is noticed and recorded. Hints: the exits directory (inotify, which may overflow
// silently) and a pidfd on the monitor; the truth is the exit file, or the engine's own `wait`.
// A scan at start and every 30 s finds what the hints lost.

import { existsSync, type FSWatcher, watch } from 'node:fs';
import { stat } from 'node:fs/promises';
import { join } from 'node:path';
import { isFailure } from '@cribus/contracts/failure.ts';
import { ContainerPhase, type ContainerRecord } from '@cribus/contracts/gen/node/v1/records.ts';
import { readFileIfExists } from '@cribus/host/files.ts';
import { wasKilledForMemory } from '@cribus/host/kernel-log.ts';
import { unmountTree } from '@cribus/host/mounts.ts';
import {
  bootId,
  isAlive,
  type ProcessWatch,
  signalProcess,
  waitForExit,
  watchProcesses,
} from '@cribus/host/processes.ts';
import { isLive } from './phases.ts';
import { endRelays } from './relayed-stdio.ts';
import { placesOf, type Worker } from './worker.ts';

const SCAN_INTERVAL_MS = 30_000;
const WATCH_INTERVAL_MS = 100;
/** For freeing what a dead container held: cgroup processes and the engine's state. */
const CLEANUP_BUDGET_MS = 30_000;
/** How long a code is asked for again, from an engine that knows the container but not its code. */
const WAIT_RETRY_BUDGET_MS = 5_000;
const WAIT_RETRY_INTERVAL_MS = 100;
/** As the kubelet knows it (kuberuntime, status of a container). */
const OOM_KILLED = 'OOMKilled';
/** 128 + SIGKILL, as a shell reports it. */
export const EXIT_CODE_KILLED = 137;
/** What can't be known: the host was restarted, or the engine forgot. */
export const EXIT_CODE_UNKNOWN = 255;

export interface Exits {
  /** Begins to watch a container with a process. */
  watch(record: ContainerRecord): void;
  /** Resolves once the container is recorded as ended, or is gone; rejects with the signal's reason. */
  ended(id: string, signal: AbortSignal): Promise<void>;
  /**
   * Looks at one container now, and records its end where it has ended. `killed`: it is about to
   * end for sure, so an engine that knows exit codes itself is asked to wait for this one.
   */
  settle(id: string, options?: { readonly killed: boolean }): Promise<void>;
  /** Records an end that needs no evidence: what a reboot or an undo took away. */
  record(id: string, end: Ending): Promise<void>;
  /** Frees what a dead container held: leftover processes, engine state, cgroup. */
  release(record: ContainerRecord): Promise<void>;
  /** Resolves when no monitor of a half-made container is left to record an end. */
  awaitStopped(id: string, signal: AbortSignal): Promise<void>;
  /** The inotify watch, the scans. */
  begin(): void;
  close(): void;
}

export interface Ending {
  readonly exitCode: number;
  readonly reason: string;
  readonly message?: string;
  /** Default: now. */
  readonly atNs?: bigint;
}

/** Why a container ended, in the words that the kubelet shows. */
export function endingReason(exitCode: number, oomKilled: boolean): string {
  if (oomKilled) return OOM_KILLED;
  return exitCode === 0 ? 'Completed' : 'Error';
}

/** `onEnded` is told of every recorded end, once, in order to report a sandbox process' death. */
export function createExits(
  worker: () => Worker,
  onEnded: (record: ContainerRecord) => void,
): Exits {
  const watches = new Map<string, { close(): void }>();
  const waiters = createWaiters();
  const settling = new Map<string, Promise<void>>();
  let processes: ProcessWatch | undefined;
  let directory: FSWatcher | undefined;

  const wake = (id: string) => {
    watches.get(id)?.close();
    watches.delete(id);
    waiters.wake(id);
  };

  const record: Exits['record'] = async (id, end) => {
    const { changes, service } = worker();
    let news = false;
    const after = await changes.apply(id, (now) => {
      if (!isLive(now)) return undefined;
      news = true;
      return {
        phase: ContainerPhase.EXITED,
        exitCode: end.exitCode,
        reason: end.reason,
        message: end.message ?? '',
        finishedAtNs: latest(end.atNs ?? service.clock.nowNs(), now.startedAtNs, now.createdAtNs),
      };
    });
    wake(id);
    if (news && after !== undefined) onEnded(after);
  };

  const settle: Exits['settle'] = (id, { killed } = { killed: false }) => {
    const running = settling.get(id);
    if (running !== undefined) return killed ? running.then(() => settle(id, { killed })) : running;
    const work = (async () => {
      const now = worker().store.get(id);
      if (now === undefined || !isLive(now)) return wake(id);
      const end = await findEnding(worker(), now, killed);
      if (end === undefined) return;
      await killLeftovers(worker(), now);
      await record(id, end);
      worker().service.background(`release ${id}`, quietly(worker(), now, release));
    })().finally(() => settling.delete(id));
    settling.set(id, work);
    return work;
  };

  const release: Exits['release'] = (dead) =>
    worker().lifecycle.run(dead.id, async () => {
      const { driver, engine, service } = worker();
      if (worker().released.has(dead.id)) return;
      if (driver.relayingCreate !== undefined) endRelays(placesOf(worker(), dead.id).bundle);
      await engine.remove(dead.id, service.clock.timeout(CLEANUP_BUDGET_MS));
      unmountTree(placesOf(worker(), dead.id).volumes);
      worker().released.add(dead.id);
    });

  const settleInBackground = (id: string) => {
    const { service, log } = { service: worker().service, log: worker().service.log };
    service.background(
      `settle ${id}`,
      settle(id).catch((error: unknown) => {
        log.error({ container: id, error: String(error) }, 'an exit could not be recorded yet');
      }),
    );
  };

  return {
    record,
    settle,
    release,
    watch: (live) => {
      processes ??= watchProcesses({ intervalMs: WATCH_INTERVAL_MS });
      watches.get(live.id)?.close();
      if (live.monitor === undefined) return;
      watches.set(
        live.id,
        processes.add(live.monitor, () => settleInBackground(live.id)),
      );
    },
    ended: async (id, signal) => {
      const now = worker().store.get(id);
      if (now !== undefined && isLive(now)) await waiters.wait(id, signal);
    },
    awaitStopped: async (id, signal) => {
      const { process, monitor } = worker().store.get(id) ?? {};
      for (const identity of [process, monitor]) {
        if (identity !== undefined) await waitForExit(identity, signal);
      }
    },
    begin: () => {
      const { paths, service, store } = worker();
      directory = watch(paths.exits, (_event, name) => {
        if (name !== null && store.get(name) !== undefined) settleInBackground(name);
      });
      directory.on('error', (error) => {
        service.log.warn({ error: String(error) }, 'exit hints stopped; the scan goes on');
      });
      service.background('exit scan', scanForEver(worker(), settleInBackground));
    },
    close: () => {
      directory?.close();
      processes?.close();
    },
  };
}

/** Those who wait for an end, by container. */
function createWaiters() {
  const waiting = new Map<string, Set<() => void>>();
  return {
    wake(id: string): void {
      for (const resolve of waiting.get(id) ?? []) resolve();
      waiting.delete(id);
    },
    /** Rejects with the signal's reason. */
    wait: (id: string, signal: AbortSignal) =>
      new Promise<void>((resolve, reject) => {
        const set = waiting.get(id) ?? new Set();
        waiting.set(id, set);
        const done = () => {
          signal.removeEventListener('abort', abort);
          resolve();
        };
        const abort = () => {
          set.delete(done);
          reject(signal.reason as Error);
        };
        set.add(done);
        if (signal.aborted) abort();
        else signal.addEventListener('abort', abort, { once: true });
      }),
  };
}

async function scanForEver(worker: Worker, settle: (id: string) => void): Promise<void> {
  const { clock, stopping } = worker.service;
  while (!stopping.aborted) {
    await clock.sleep(SCAN_INTERVAL_MS, stopping).catch(() => undefined);
    if (stopping.aborted) return;
    for (const record of worker.store.all()) if (isLive(record)) settle(record.id);
  }
}

/** Undefined while the container lives. */
async function findEnding(
  worker: Worker,
  record: ContainerRecord,
  killed = false,
): Promise<Ending | undefined> {
  const file = join(worker.paths.exits, record.id);
  const content = await readFileIfExists(file);
  const text = content?.toString('utf8').trim() ?? '';
  if (text === '' && killed && worker.driver.exitSource === 'wait' && !record.sandboxProcess) {
    const exitCode = await exitCodeOf(worker, record, EXIT_CODE_KILLED);
    return { exitCode, reason: endingReason(exitCode, false) };
  }
  if (text === '') return await withoutExitFile(worker, record);
  const exitCode = await exitCodeOf(worker, record, Number(text));
  const times = await stat(file, { bigint: true });
  const oomKilled = wasOomKilled(worker, record, exitCode);
  const atNs = worker.driver.exitSource === 'monitor' ? { atNs: times.mtimeNs } : {};
  if (oomKilled) return { exitCode: EXIT_CODE_KILLED, reason: endingReason(0, true), ...atNs };
  return { exitCode, reason: endingReason(exitCode, false), ...atNs };
}

/** A living monitor will write the file; a dead one can't, and its container goes unwatched. */
async function withoutExitFile(
  worker: Worker,
  record: ContainerRecord,
): Promise<Ending | undefined> {
  // One that waits for its restore has no monitor yet.
  if (record.restore && record.monitor === undefined) return undefined;
  if (record.monitor !== undefined && isAlive(record.monitor)) return undefined;
  if (existsSync(join(worker.paths.exits, record.id))) return await findEnding(worker, record);
  if (worker.driver.signalBy === 'engine') {
    await worker.engine
      .kill(record.id, 'KILL', worker.service.clock.timeout(CLEANUP_BUDGET_MS))
      .catch((error: unknown) => {
        worker.service.log.warn({ container: record.id, error: String(error) }, 'kill failed');
      });
  } else if (record.process !== undefined) {
    signalProcess(record.process, 'SIGKILL');
  }
  return {
    exitCode: EXIT_CODE_KILLED,
    reason: 'MonitorLost',
    message: 'the monitor (conmon) ended without recording an exit; the container was killed',
  };
}

/** Inside a Sentry the exit file only hints (it holds -1); the engine answers after the exit too. */
async function exitCodeOf(
  worker: Worker,
  record: ContainerRecord,
  fileCode: number,
): Promise<number> {
  if (worker.driver.exitSource === 'monitor' || record.sandboxProcess) return fileCode;
  if (diedWithItsSandbox(worker, record)) return EXIT_CODE_KILLED;
  const { clock, stopping } = worker.service;
  // While a start is in flight the engine denies that there is anything to wait for.
  await worker.lifecycle.run(record.id, async () => undefined, stopping);
  // One that was never started has no code to wait for, and the engine would not answer.
  if (worker.store.get(record.id)?.startedAtNs === 0n) return EXIT_CODE_KILLED;
  const untilMs = clock.monotonicMs() + WAIT_RETRY_BUDGET_MS;
  for (;;) {
    try {
      return (await worker.engine.wait(record.id, stopping)) ?? EXIT_CODE_KILLED;
    } catch (error) {
      if (!isFailure(error)) throw error;
      const state = await worker.engine.state(record.id, stopping).catch(() => undefined);
      // What died with its Sentry was killed.
      if (state === undefined || clock.monotonicMs() > untilMs) return EXIT_CODE_KILLED;
      await clock.sleep(WAIT_RETRY_INTERVAL_MS, stopping);
    }
  }
}

/** True for a container inside a sandbox's process (a Sentry) that is gone, and took it along. */
export function diedWithItsSandbox(worker: Worker, record: ContainerRecord): boolean {
  if (worker.driver.sandboxModel !== 'root-container' || record.sandboxProcess) return false;
  const { process } = worker.store.get(record.sandboxId) ?? {};
  return process !== undefined && !isAlive(process);
}

/**
 * True when the kernel killed the container's first process or any other one of it for memory, as with
 * memory.oom.group, by which a kubelet has the whole container die of it. The cgroup's count is asked,
 * while the cgroup is there: systemd removes a scope as soon as it is empty. The monitor's note is asked
 * after it: v1 also tells every cgroup below one that ran out, where nobody may have been killed, and v2
 * tells only whose own limit it was. So the kernel's log comes last.
 */
function wasOomKilled(worker: Worker, record: ContainerRecord, exitCode: number): boolean {
  if (worker.driver.exitSource === 'wait' && !record.sandboxProcess) {
    const sentry = worker.store.get(record.sandboxId);
    // Inside a Sentry nobody is killed for memory but the Sentry itself.
    if (sentry === undefined || !diedWithItsSandbox(worker, record)) return false;
    return sentry.reason === OOM_KILLED || wasOomKilled(worker, sentry, EXIT_CODE_KILLED);
  }
  const kills = record.cgroupPath.startsWith('/')
    ? worker.cgroups.oomKills(record.cgroupPath)
    : undefined;
  if (kills !== undefined) return kills > 0;
  if (existsSync(join(placesOf(worker, record.id).persist, 'oom'))) return true;
  return isLoggedVictim({ ...record, exitCode });
}

/**
 * True where the kernel says so of the container's first process. It is asked only of one that nobody else
 * is known to have killed, for it keeps no more than numbers, and is read whole.
 */
export function isLoggedVictim(
  dead: Pick<ContainerRecord, 'exitCode' | 'process' | 'stopRequested'>,
  log?: string,
): boolean {
  const { exitCode, process, stopRequested } = dead;
  if (exitCode !== EXIT_CODE_KILLED || stopRequested) return false;
  return process?.bootId === bootId() && wasKilledForMemory(process.pid, log);
}

/** Processes that outlived the container's first one: possible where the PID namespace is shared. */
async function killLeftovers(worker: Worker, record: ContainerRecord): Promise<void> {
  if (!record.cgroupPath.startsWith('/') || record.cgroupPath.length < 2) return;
  if (worker.driver.sandboxModel === 'root-container') return;
  if (worker.cgroups.pids(record.cgroupPath).length === 0) return;
  await worker.cgroups.killAll(record.cgroupPath, worker.service.clock.timeout(CLEANUP_BUDGET_MS));
}

async function quietly(
  worker: Worker,
  record: ContainerRecord,
  release: Exits['release'],
): Promise<void> {
  await release(record).catch((error: unknown) => {
    worker.service.log.warn(
      { container: record.id, error: String(error) },
      'the engine state of an exited container stays until it is removed',
    );
  });
}

function latest(...times: readonly bigint[]): bigint {
  return [...times].sort((a, b) => Number(b - a))[0] ?? 0n;
}
