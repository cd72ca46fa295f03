// Memory as the kernel counts it: the proportional set size, where a page that several processes share
// is counted once in all.

import { readFileSync } from 'node:fs';
import { isErrno } from '@cribus/host/errno.ts';

/** The sum over these processes, in MB of 1024². */
export function proportionalMegabytes(pids: readonly number[]): number {
  return pids.reduce((sum, pid) => sum + pssKilobytes(pid), 0) / 1024;
}

function pssKilobytes(pid: number): number {
  try {
    const text = readFileSync(`/proc/${pid}/smaps_rollup`, 'utf8');
    return Number(/^Pss:\s+(\d+) kB$/m.exec(text)?.[1] ?? 0);
  } catch (error) {
    if (isErrno(error, 'ENOENT', 'ESRCH')) return 0;
    throw error;
  }
}
