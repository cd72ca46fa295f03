// Finding all that a process has started, also what left its tree: a daemon that forked twice is its
// container's child by then. Every process inherits the timer slack of its parent over fork and execve,
// and nobody changes it (prctl(2), PR_SET_TIMERSLACK): a value of some nanoseconds more than the usual
// one is a mark that stays, costs nothing, and needs no cgroup of its own.

import { readFileSync } from 'node:fs';
import { isErrno } from './errno.ts';
import { checked, libc } from './libc.ts';
import { bootId, identify, listPids, type ProcessIdentity } from './processes.ts';

export interface ProcessMark {
  readonly slackNs: number;
  /** Of this process' making: what bears the mark and is older has it from an earlier one. */
  readonly since: bigint;
}

/** From <sys/prctl.h>. */
const PR_SET_TIMERSLACK = 29;
/** Of every process that was not given another (prctl(2)). */
const USUAL_NS = 50_000;
/** Far more than are in use at the same time, and all of no consequence for a timer. */
const MARKS_MAX = 16_384;
/** USER_HZ, in which proc(5) counts start times, on all architectures that we run on. */
const TICKS_PER_SECOND = 100n;

let last = MARKS_MAX;
/** Of daemons that were alive when the marks began anew. */
let taken: ReadonlySet<string> = new Set();

/** A mark for one process to be started now, which no living process has from an earlier one. */
export function createMark(): ProcessMark {
  for (let tries = 0; tries < MARKS_MAX; tries += 1) {
    // Once a round is enough: in between only those get a mark whose turn it was.
    if (last === MARKS_MAX) taken = new Set(listPids().map(slackOf));
    last = (last % MARKS_MAX) + 1;
    if (!taken.has(String(USUAL_NS + last))) break;
  }
  return { slackNs: USUAL_NS + last, since: uptimeTicks() };
}

function uptimeTicks(): bigint {
  const [seconds = '0'] = readFileSync('/proc/uptime', 'latin1').split(' ');
  return BigInt(Math.floor(Number(seconds) * Number(TICKS_PER_SECOND)));
}

/** Runs a synchronous function whose new processes bear the mark. */
export function withMark<T>(mark: ProcessMark, work: () => T): T {
  checked(libc().prctl(PR_SET_TIMERSLACK, mark.slackNs, 0, 0, 0), 'prctl', 'PR_SET_TIMERSLACK');
  try {
    return work();
  } finally {
    // Zero: back to what this thread itself was started with.
    libc().prctl(PR_SET_TIMERSLACK, 0, 0, 0, 0);
  }
}

/** The living processes that bear the mark. */
export function listMarked(mark: ProcessMark): ProcessIdentity[] {
  const wanted = String(mark.slackNs);
  return listPids()
    .filter((pid) => slackOf(pid) === wanted)
    .flatMap((pid) => identify(pid) ?? [])
    .filter((each) => each.bootId === bootId() && each.startTimeTicks >= mark.since);
}

function slackOf(pid: number): string {
  try {
    return readFileSync(`/proc/${pid}/timerslack_ns`, 'latin1').trim();
  } catch (error) {
    if (isErrno(error, 'ENOENT', 'ESRCH', 'EPERM', 'EACCES')) return '';
    throw error;
  }
}
