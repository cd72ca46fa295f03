// The system's own stack as systemd runs it: whether it does, unit by unit. Commands that start or stop
// a stack themselves must keep away from it then.

import { existsSync } from 'node:fs';
import { Failure } from '@cribus/contracts/failure.ts';
import { systemClock } from '@cribus/host/clock.ts';
import { isErrno } from '@cribus/host/errno.ts';
import { run } from '@cribus/host/spawn.ts';
import type { Stack } from './open-stack.ts';
import { PART_NAMES, type PartName } from './services.ts';

/** Where the package and deploy/install.sh put the unit. */
const TARGETS = ['/lib/systemd/system/cribus.target', '/etc/systemd/system/cribus.target'];
/** A start that was given up leaves its unit so; systemd itself says nothing else of a stopped one. */
const STOPPED: readonly string[] = ['inactive', 'failed'];
/** Units have 60 s to stop before they are killed (TimeoutStopSec). */
const STOPPING_BUDGET_MS = 90_000;
const ASK_INTERVAL_MS = 200;
const ANSWER_BUDGET_MS = 30_000;

/** Runs systemctl with these words and answers its output, whatever its exit code. */
export type AskSystemctl = (words: readonly string[]) => Promise<string>;

/** True if this is the stack that the units are for, and systemd is here with them. */
export function hasUnits({ directory }: Pick<Stack, 'directory'>): boolean {
  // sd_booted(3) looks there.
  if (directory !== undefined || !existsSync('/run/systemd/system')) return false;
  return TARGETS.some((path) => existsSync(path));
}

/** As in deploy/systemd, without its ending. */
export function unitOf(part: PartName): string {
  return `cribus-${part.replace(/^cri-|-server$/g, '')}`;
}

/** Raises wrong_state where systemd runs this stack; waits for units that are stopping. */
export async function refuseUnderUnits(stack: Pick<Stack, 'directory'>): Promise<void> {
  if (hasUnits(stack)) await requireUnitsStopped(askSystemctl);
}

/** Exported for its test. */
export async function requireUnitsStopped(ask: AskSystemctl): Promise<void> {
  const began = systemClock.monotonicMs();
  for (;;) {
    const states = await unitStates(ask);
    if (states.length === 0) return;
    const stopping = states.every((state) => state === 'deactivating');
    if (!stopping || systemClock.monotonicMs() - began > STOPPING_BUDGET_MS) break;
    await systemClock.sleep(ASK_INTERVAL_MS);
  }
  throw new Failure(
    'wrong_state',
    'systemd runs this stack: stop it with "systemctl stop cribus.target cribus-prepare.service" first',
  );
}

/** Of each unit that has a process or a socket, or will have one. */
async function unitStates(ask: AskSystemctl): Promise<string[]> {
  const units = [
    ...['cribus.target', 'cribus-gateway.socket'],
    ...PART_NAMES.map((name) => `${unitOf(name)}.service`),
    'cribus-prepare.service',
  ];
  // One line for each. Its exit code is no answer: it leaves out those that are starting.
  const lines = (await ask(['is-active', ...units])).trimEnd().split('\n');
  const states = units.map((unit, index) => ({ unit, state: lines[index] || 'inactive' }));
  return (
    states
      // What it wrote stays active until somebody stops it, and runs nothing.
      .filter(({ unit, state }) => unit !== 'cribus-prepare.service' || state !== 'active')
      .map(({ state }) => state)
      .filter((state) => !STOPPED.includes(state))
  );
}

export interface UnitState {
  /** Its first process lives. */
  readonly pid: number;
  /** Wall clock, milliseconds since 1970. */
  readonly startedAtMs: number;
}

/** The parts that have a process of a unit; none where systemd doesn't run this stack. */
export async function describeUnits(
  stack: Pick<Stack, 'directory'>,
): Promise<ReadonlyMap<PartName, UnitState>> {
  return hasUnits(stack) ? parseUnits(await askSystemctl(SHOW_WORDS)) : new Map();
}

const SHOW_WORDS = [
  ...['show', '--timestamp=unix', '--property=Id,MainPID,ExecMainStartTimestamp'],
  ...PART_NAMES.map((name) => `${unitOf(name)}.service`),
];

/** Exported for its test: one paragraph for each unit. */
export function parseUnits(text: string): ReadonlyMap<PartName, UnitState> {
  const units = new Map<PartName, UnitState>();
  for (const paragraph of text.split('\n\n')) {
    const value = (name: string) => new RegExp(`^${name}=@?(.*)$`, 'm').exec(paragraph)?.[1] ?? '';
    const part = PART_NAMES.find((name) => `${unitOf(name)}.service` === value('Id'));
    const pid = Number(value('MainPID'));
    if (part === undefined || !(pid > 0)) continue;
    units.set(part, { pid, startedAtMs: Number(value('ExecMainStartTimestamp')) * 1000 });
  }
  return units;
}

/** Nothing where there is no systemctl. */
export const askSystemctl: AskSystemctl = async (words) => {
  const signal = systemClock.timeout(ANSWER_BUDGET_MS);
  try {
    const { stdout } = await run({ command: 'systemctl', args: words, signal });
    return String(stdout);
  } catch (error) {
    if (isErrno(error, 'ENOENT')) return '';
    if (!signal.aborted) throw error;
    throw new Failure('timeout', `systemctl did not answer within ${ANSWER_BUDGET_MS / 1000} s`);
  }
};
