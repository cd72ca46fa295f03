// Keeps the parts of a stack running: starts or adopts each, starts one that died again, and stops
// them all in order. What runs is recorded at every change, for an `up` that comes after a crash.

import { closeSync } from 'node:fs';
import { constants as osConstants } from 'node:os';
import { join } from 'node:path';
import type { Roots } from '@cribus/contracts/paths.ts';
import { systemClock } from '@cribus/host/clock.ts';
import {
  identify,
  isAlive,
  type ProcessIdentity,
  signalProcess,
  waitForExit,
} from '@cribus/host/processes.ts';
import { type SpawnResult, spawn } from '@cribus/host/spawn.ts';
import { boundLog, openLog } from './part-log.ts';
import { type PartState, type PartStates, writePartStates } from './part-state.ts';
import type { PartPlan } from './parts.ts';
import { type PartName, STOP_ORDER } from './services.ts';

/** How long a part may take to end by itself after SIGTERM. */
const STOP_GRACE_MS = 10_000;
const BACKOFF_FIRST_MS = 100;
/** With its start, a part that died many times in a row is still back within five seconds. */
const BACKOFF_MAX_MS = 2_000;
/** A part that ran so long starts its back-off anew. */
const STEADY_AFTER_MS = 30_000;
const LOG_CHECK_INTERVAL_MS = 60_000;

export interface Supervisor {
  /** Which parts run right now. */
  states(): PartStates;
  /** Stops restarting, then stops every part in order. */
  stop(): Promise<void>;
}

export interface SuperviseOptions {
  readonly roots: Roots;
  readonly plans: readonly PartPlan[];
  /** Living parts of an earlier `up`; those whose plan is still the same are kept. */
  readonly living: PartStates;
  readonly say: (line: string) => void;
}

/** Starts every part; resolves when each has its first process. */
export async function supervise(options: SuperviseOptions): Promise<Supervisor> {
  const { roots, plans, living, say } = options;
  const states: PartStates = {};
  const stopping = new AbortController();
  let writing = Promise.resolve();
  const record = (name: PartName, state: PartState | undefined) => {
    if (state === undefined) delete states[name];
    else states[name] = state;
    writing = writing.then(() => writePartStates(roots, states));
    return writing;
  };
  const adopted = await replaceOthers(options);
  if (adopted.size > 0) {
    const which = adopted.size === plans.length ? 'every part' : [...adopted.keys()].join(', ');
    say(`Found running, and kept: ${which}.`);
  }
  const loops = plans.map((plan) => {
    const first = adopted.has(plan.name) ? living[plan.name] : undefined;
    return keepRunning({ roots, plan, first, record, say, signal: stopping.signal });
  });
  const logs = boundLogs(roots, plans, stopping.signal);
  await writing;
  return {
    states: () => ({ ...states }),
    stop: async () => {
      stopping.abort();
      await stopParts({ states: { ...states }, say });
      await Promise.all([...loops, logs]);
      await writing;
      await writePartStates(roots, {});
    },
  };
}

/** Stops living parts that are not, or no longer, planned as they run; answers those to keep. */
async function replaceOthers(options: SuperviseOptions): Promise<Map<PartName, PartPlan>> {
  const kept = new Map<PartName, PartPlan>();
  for (const plan of options.plans) {
    if (options.living[plan.name]?.fingerprint === plan.fingerprint) kept.set(plan.name, plan);
  }
  const others = Object.fromEntries(
    Object.entries(options.living).filter(([name]) => !kept.has(name as PartName)),
  ) as PartStates;
  const names = Object.keys(others);
  if (names.length > 0) {
    options.say(`Replacing what an earlier "up" left running: ${names.join(', ')}.`);
    await stopParts({ states: others, say: options.say });
  }
  return kept;
}

interface KeepRunningOptions {
  readonly roots: Roots;
  readonly plan: PartPlan;
  readonly first: PartState | undefined;
  readonly record: (name: PartName, state: PartState | undefined) => Promise<void>;
  readonly say: (line: string) => void;
  readonly signal: AbortSignal;
}

async function keepRunning(options: KeepRunningOptions): Promise<void> {
  const { plan, record, say, signal } = options;
  let first = options.first;
  let failures = 0;
  while (!signal.aborted) {
    const began = systemClock.monotonicMs();
    const process = first === undefined ? startPart(options.roots, plan) : adoptPart(first);
    first = undefined;
    await record(plan.name, process.state);
    const how = await process.ended;
    await record(plan.name, undefined);
    if (signal.aborted) return;
    if (systemClock.monotonicMs() - began >= STEADY_AFTER_MS) failures = 0;
    const delayMs = backoffMs(failures);
    failures += 1;
    const when = delayMs === 0 ? 'starting it again' : `starting it again in ${delayMs / 1000} s`;
    say(`${plan.name} ended (${how}); ${when}.`);
    await systemClock.sleep(delayMs, signal).catch(() => undefined);
  }
}

/** At once the first time, then 0.1 s doubled up to 2 s. */
export function backoffMs(failures: number): number {
  if (failures === 0) return 0;
  return Math.min(BACKOFF_FIRST_MS * 2 ** (failures - 1), BACKOFF_MAX_MS);
}

interface RunningPart {
  readonly state: PartState | undefined;
  /** How it ended, for a person. Never rejects. */
  readonly ended: Promise<string>;
}

function startPart(roots: Roots, plan: PartPlan): RunningPart {
  let child: ReturnType<typeof spawn>;
  const log = openLog(join(roots.log, `${plan.name}.log`));
  try {
    child = spawn({
      command: plan.command,
      args: plan.args,
      env: plan.env,
      cwd: '/',
      stdout: { fd: log },
      stderr: { fd: log },
    });
  } catch (error) {
    return { state: undefined, ended: Promise.resolve(`it can't be started: ${String(error)}`) };
  } finally {
    closeSync(log);
  }
  const identity = identify(child.pid);
  const { fingerprint, version, healthPort } = plan;
  const startedAtMs = Number(systemClock.nowNs() / 1_000_000n);
  const state =
    identity === undefined
      ? undefined
      : { identity, startedAtMs, fingerprint, version, healthPort };
  return { state, ended: child.exited.then(howItEnded) };
}

function howItEnded(result: SpawnResult): string {
  if (result.signal !== undefined) return `signal ${signalName(result.signal)}`;
  return `exit code ${result.exitCode}`;
}

function signalName(signal: number): string {
  const row = Object.entries(osConstants.signals).find(([, number]) => number === signal);
  return row?.[0] ?? String(signal);
}

/** A part that another process started: its exit code is not ours to learn. */
function adoptPart(state: PartState): RunningPart {
  const never = new AbortController().signal;
  return { state, ended: waitForExit(state.identity, never).then(() => 'it was killed or failed') };
}

async function boundLogs(
  roots: Roots,
  plans: readonly PartPlan[],
  signal: AbortSignal,
): Promise<void> {
  while (!signal.aborted) {
    await systemClock.sleep(LOG_CHECK_INTERVAL_MS, signal).catch(() => undefined);
    if (signal.aborted) return;
    for (const plan of plans) await boundLog(join(roots.log, `${plan.name}.log`));
  }
}

/** Stops living parts in order: SIGTERM, ten seconds, then SIGKILL (which is said). */
export async function stopParts(options: {
  readonly states: PartStates;
  readonly say: (line: string) => void;
}): Promise<void> {
  for (const group of STOP_ORDER) {
    await Promise.all(
      group.map(async (name) => {
        const state = options.states[name];
        if (state === undefined) return;
        if (await stopProcess(state.identity, STOP_GRACE_MS)) return;
        options.say(`${name} did not end within ${STOP_GRACE_MS / 1000} s and was killed.`);
      }),
    );
  }
}

/** True if it ended by itself. */
export async function stopProcess(identity: ProcessIdentity, graceMs: number): Promise<boolean> {
  if (!isAlive(identity)) return true;
  signalProcess(identity, 'SIGTERM');
  try {
    await waitForExit(identity, systemClock.timeout(graceMs));
    return true;
  } catch (error) {
    if (!(error instanceof Error && error.name === 'TimeoutError')) throw error;
    signalProcess(identity, 'SIGKILL');
    await waitForExit(identity, systemClock.timeout(graceMs));
    return false;
  }
}
