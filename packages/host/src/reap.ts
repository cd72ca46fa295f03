// Waiting for the end of children: our own by pid, beside child_process, and where a process asks for
// it also what its children leave behind.

import { existsSync, readFileSync } from 'node:fs';
import { isErrno } from './errno.ts';
import { checked, libc } from './libc.ts';
import { listPids } from './processes.ts';

const WNOHANG = 1;
/** From <sys/prctl.h>. */
const PR_SET_CHILD_SUBREAPER = 36;
/** SIGCHLD may be missed (it is one bit); a scan this often finds what it did not tell. */
const SCAN_MS = 1000;
const LATE_LOOK_MS = 100;

/** Our children that have not been reaped: pid to what learns the wait status. */
const unreaped = new Map<number, (status: number) => void>();
/** What orphans ended with that nobody has asked for; the oldest are forgotten. */
const unclaimed = new Map<number, number>();
const UNCLAIMED_MAX = 1024;
let scanTimer: NodeJS.Timeout | undefined;
let adopting = false;

/**
 * Makes this process the parent of what its children leave behind (PR_SET_CHILD_SUBREAPER, prctl(2)),
 * and reaps it: an engine that waits for its own orphans' end would wait for the host's init, and not
 * every init reaps at once. For processes that start programs by `spawn` alone.
 */
export function adoptOrphans(): void {
  if (adopting) return;
  becomeSubreaper();
  adopting = true;
  process.on('SIGCHLD', scanOrphans);
}

/**
 * As adoptOrphans, for a process that uses child_process too: it reaps what nobody else did within two
 * looks. The interval does not keep the process up.
 */
export function adoptOrphansLate(): void {
  if (adopting) return;
  becomeSubreaper();
  adopting = true;
  let before = new Set<number>();
  const look = () => {
    const zombies = new Set(listPids().filter((pid) => !unreaped.has(pid) && isOurZombie(pid)));
    for (const pid of zombies) {
      const status = new Int32Array(1);
      if (before.has(pid) && libc().waitpid(pid, status, WNOHANG) === pid) {
        keepUnclaimed(pid, status[0] ?? 0);
      }
    }
    before = zombies;
  };
  setInterval(look, LATE_LOOK_MS).unref();
}

/** Fields 3 and 4 of /proc/<pid>/stat (proc(5)): state and parent. */
function isOurZombie(pid: number): boolean {
  try {
    const text = readFileSync(`/proc/${pid}/stat`, 'utf8');
    const [state, parent] = text.slice(text.lastIndexOf(')') + 2).split(' ');
    return state === 'Z' && Number(parent) === process.pid;
  } catch (error) {
    if (isErrno(error, 'ENOENT', 'ESRCH')) return false;
    throw error;
  }
}

function becomeSubreaper(): void {
  checked(libc().prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0), 'prctl', 'PR_SET_CHILD_SUBREAPER');
}

function scanOrphans(): void {
  const status = new Int32Array(1);
  for (;;) {
    const pid = libc().waitpid(-1, status, WNOHANG);
    if (pid <= 0) return;
    const resolve = unreaped.get(pid);
    unreaped.delete(pid);
    if (resolve !== undefined) resolve(status[0] ?? 0);
    else keepUnclaimed(pid, status[0] ?? 0);
  }
}

function keepUnclaimed(pid: number, status: number): void {
  unclaimed.delete(pid);
  unclaimed.set(pid, status);
  const [oldest] = unclaimed.keys();
  if (unclaimed.size > UNCLAIMED_MAX && oldest !== undefined) unclaimed.delete(oldest);
}

/** False once the pid may belong to somebody else. */
export function isUnreaped(pid: number): boolean {
  return unreaped.has(pid);
}

/**
 * As reap, of what a child of ours left behind and this process has adopted; it may be over and reaped
 * already. Only for a pid that was told just now.
 */
export function reapOrphan(pid: number): Promise<number> {
  const status = unclaimed.get(pid);
  unclaimed.delete(pid);
  // One that lives has its number from an older one.
  if (status === undefined || existsSync(`/proc/${pid}`)) return reap(pid);
  return Promise.resolve(status);
}

/** Resolves with the wait status (waitpid(2)) of a child of ours. */
export function reap(pid: number): Promise<number> {
  return new Promise((resolve) => {
    unreaped.set(pid, resolve);
    if (scanTimer === undefined) {
      process.on('SIGCHLD', scan);
      // It also keeps the process up while a child runs, as child_process does.
      scanTimer = setInterval(scan, SCAN_MS);
    }
    scan();
  });
}

function scan(): void {
  const status = new Int32Array(1);
  for (const [pid, resolve] of unreaped) {
    const result = libc().waitpid(pid, status, WNOHANG);
    if (result === 0) continue;
    unreaped.delete(pid);
    // ECHILD cannot be: nobody else waits for our pids. Were it so, the exit code is lost.
    resolve(result === pid ? (status[0] ?? 0) : 0xff00);
  }
  if (unreaped.size === 0 && scanTimer !== undefined) {
    clearInterval(scanTimer);
    scanTimer = undefined;
    process.off('SIGCHLD', scan);
  }
}
