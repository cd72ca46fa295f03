// What a set of processes has open and does, from /proc: counted in one synchronous pass, of which each
// process costs some 100 µs.
import { readdirSync, readlinkSync } from 'node:fs';
import { readUsageFile } from './cgroup-usage.ts';
import { isErrno } from './errno.ts';

/** As records.proto has it. */
export interface ProcessFigures {
  readonly processes: bigint;
  readonly threads: bigint;
  readonly fileDescriptors?: bigint;
  readonly sockets?: bigint;
  /** Of the first process; -1 is unlimited. */
  readonly openFilesSoftLimit?: bigint;
  readonly sleeping: bigint;
  readonly running: bigint;
  readonly stopped: bigint;
  readonly uninterruptible: bigint;
  /** From schedstat; absent where the kernel keeps none. */
  readonly runNs?: bigint;
  readonly runQueueNs?: bigint;
  readonly runPeriods?: bigint;
}

/** More processes than that are not looked into one by one: the pass would hold everything else up. */
export const PROCESSES_READ_MAX = 200;
/** Descriptors beyond that are counted, and not asked whether they are sockets. */
const DESCRIPTORS_READ_MAX = 2_000;

/** The states of proc(5) as cAdvisor names them; what is in none of them sleeps, or is on its way out. */
const STATES: Readonly<Record<string, 'sleeping' | 'running' | 'stopped' | 'uninterruptible'>> = {
  S: 'sleeping',
  I: 'sleeping',
  R: 'running',
  T: 'stopped',
  t: 'stopped',
  D: 'uninterruptible',
};

/**
 * Figures of these processes; what is gone meanwhile is not counted. Undefined when there are more
 * than PROCESSES_READ_MAX.
 */
export function readProcessFigures(pids: readonly number[]): ProcessFigures | undefined {
  if (pids.length > PROCESSES_READ_MAX) return undefined;
  const states = { sleeping: 0, running: 0, stopped: 0, uninterruptible: 0 };
  const sums = { processes: 0, threads: 0, fileDescriptors: 0, sockets: 0 };
  let schedule: [run: bigint, queue: bigint, periods: bigint] | undefined;
  for (const pid of pids) {
    const tasks = namesIn(`/proc/${pid}/task`);
    if (tasks === undefined) continue;
    sums.processes += 1;
    sums.threads += tasks.length;
    for (const task of tasks) {
      const state = stateOf(`/proc/${pid}/task/${task}/stat`);
      if (state !== undefined) states[state] += 1;
      schedule = addSchedule(schedule, `/proc/${pid}/task/${task}/schedstat`);
    }
    const open = countDescriptors(pid);
    sums.fileDescriptors += open.descriptors;
    sums.sockets += open.sockets;
  }
  const [first] = pids;
  const softLimit = first === undefined ? undefined : openFilesSoftLimit(first);
  const count = (value: number) => BigInt(value);
  return {
    processes: count(sums.processes),
    threads: count(sums.threads),
    fileDescriptors: count(sums.fileDescriptors),
    sockets: count(sums.sockets),
    sleeping: count(states.sleeping),
    running: count(states.running),
    stopped: count(states.stopped),
    uninterruptible: count(states.uninterruptible),
    ...(softLimit === undefined ? {} : { openFilesSoftLimit: softLimit }),
    ...(schedule === undefined
      ? {}
      : { runNs: schedule[0], runQueueNs: schedule[1], runPeriods: schedule[2] }),
  };
}

/** The soft limit of open files in /proc/<pid>/limits; undefined when the process is gone. */
export function openFilesSoftLimit(pid: number): bigint | undefined {
  const value = /^Max open files\s+(\d+|unlimited)/m.exec(readProc(`/proc/${pid}/limits`))?.[1];
  if (value === undefined) return undefined;
  return value === 'unlimited' ? -1n : BigInt(value);
}

/** The third field; the program's name before it may hold anything. */
function stateOf(path: string) {
  const stat = readProc(path);
  return STATES[stat.slice(stat.lastIndexOf(')') + 2)[0] ?? ''];
}

function addSchedule(
  sum: readonly [bigint, bigint, bigint] | undefined,
  path: string,
): [bigint, bigint, bigint] | undefined {
  const found = /^(\d+) (\d+) (\d+)/.exec(readProc(path));
  const [run = 0n, queue = 0n, periods = 0n] = sum ?? [];
  if (found === null) return sum === undefined ? undefined : [run, queue, periods];
  const [, ownRun = '', ownQueue = '', ownPeriods = ''] = found;
  return [run + BigInt(ownRun), queue + BigInt(ownQueue), periods + BigInt(ownPeriods)];
}

function countDescriptors(pid: number): { descriptors: number; sockets: number } {
  const names = namesIn(`/proc/${pid}/fd`) ?? [];
  let sockets = 0;
  for (const name of names.slice(0, DESCRIPTORS_READ_MAX)) {
    try {
      if (readlinkSync(`/proc/${pid}/fd/${name}`).startsWith('socket:')) sockets += 1;
    } catch (error) {
      if (!isErrno(error, 'ENOENT', 'ESRCH', 'EACCES')) throw error;
    }
  }
  return { descriptors: names.length, sockets };
}

function namesIn(path: string): string[] | undefined {
  try {
    return readdirSync(path);
  } catch (error) {
    if (isErrno(error, 'ENOENT', 'ESRCH', 'EACCES')) return undefined;
    throw error;
  }
}

/** Empty when the process is gone. */
function readProc(path: string): string {
  try {
    return readUsageFile(path) ?? '';
  } catch (error) {
    if (isErrno(error, 'ESRCH', 'EACCES', 'EINVAL')) return '';
    throw error;
  }
}
