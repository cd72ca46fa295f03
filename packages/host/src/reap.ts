// Waiting for the end of children: our own by pid, beside child_process, and where a process asks for
// it also what its children leave behind.

import { checked, libc } from './libc.ts';

const WNOHANG = 1;
/** From <sys/prctl.h>. */
const PR_SET_CHILD_SUBREAPER = 36;
/** SIGCHLD may be missed (it is one bit); a scan this often finds what it did not tell. */
const SCAN_MS = 1000;

/** Our children that have not been reaped: pid to what learns the wait status. */
const unreaped = new Map<number, (status: number) => void>();
let scanTimer: NodeJS.Timeout | undefined;
let adopting = false;

/**
 * Makes this process the parent of what its children leave behind (PR_SET_CHILD_SUBREAPER, prctl(2)),
 * and reaps it: an engine that waits for its own orphans' end would wait for the host's init, and not
 * every init reaps at once. For processes that start programs by `spawn` alone.
 */
export function adoptOrphans(): void {
  if (adopting) return;
  checked(libc().prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0), 'prctl', 'PR_SET_CHILD_SUBREAPER');
  adopting = true;
  process.on('SIGCHLD', scanOrphans);
}

function scanOrphans(): void {
  const status = new Int32Array(1);
  for (;;) {
    const pid = libc().waitpid(-1, status, WNOHANG);
    if (pid <= 0) return;
    const resolve = unreaped.get(pid);
    unreaped.delete(pid);
    resolve?.(status[0] ?? 0);
  }
}

/** False once the pid may belong to somebody else. */
export function isUnreaped(pid: number): boolean {
  return unreaped.has(pid);
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
