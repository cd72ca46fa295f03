// The place of running processes in the out-of-memory killer's order (proc(5), oom_score_adj).

import { closeSync, constants, openSync, readFileSync, writeSync } from 'node:fs';
import { isErrno } from './errno.ts';

/**
 * Gives the processes that have the score `from` the score `to`; one that has set its own keeps it. The
 * answer puts the former back. Throws EACCES for a score below what the kernel lets us set, after
 * having put back what was changed.
 */
export function moveOomScores(
  pids: readonly number[],
  scores: { readonly from: number; readonly to: number },
): () => void {
  const moved: number[] = [];
  const undo = () => {
    for (const pid of moved.splice(0)) write(pid, scores.from);
  };
  try {
    for (const pid of pids) {
      if (read(pid) !== scores.from) continue;
      write(pid, scores.to);
      moved.push(pid);
    }
  } catch (error) {
    undo();
    throw error;
  }
  return undo;
}

function read(pid: number): number | undefined {
  return unlessGone(() => Number(readFileSync(`/proc/${pid}/oom_score_adj`, 'latin1')));
}

function write(pid: number, score: number): void {
  unlessGone(() => {
    const fd = openSync(`/proc/${pid}/oom_score_adj`, constants.O_WRONLY);
    try {
      writeSync(fd, String(score));
    } finally {
      closeSync(fd);
    }
  });
}

function unlessGone<T>(work: () => T): T | undefined {
  try {
    return work();
  } catch (error) {
    if (isErrno(error, 'ENOENT', 'ESRCH')) return undefined;
    throw error;
  }
}
