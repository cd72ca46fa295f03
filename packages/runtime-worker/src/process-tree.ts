// The processes below a process, as /proc or an engine tells.

import { readFileSync } from 'node:fs';
import { isErrno } from '@cribus/host/errno.ts';
import { listPids } from '@cribus/host/processes.ts';

/** Children, their children and so on; a process that started anew elsewhere is not found. */
export function descendants(pid: number): number[] {
  const parents = new Map<number, number>();
  for (const each of listPids()) {
    const parent = parentOf(each);
    if (parent !== undefined) parents.set(each, parent);
  }
  return below(pid, parents);
}

/** As descendants, of a table that has the parent of each process. */
export function below(pid: number, parents: ReadonlyMap<number, number>): number[] {
  const children = new Map<number, number[]>();
  for (const [each, parent] of parents) {
    children.set(parent, [...(children.get(parent) ?? []), each]);
  }
  const found: number[] = [];
  const todo = [pid];
  while (todo.length > 0) {
    const next = (children.get(todo.pop() ?? 0) ?? []).filter((each) => !found.includes(each));
    found.push(...next);
    todo.push(...next);
  }
  return found;
}

/** Field 4 of /proc/<pid>/stat; the name in field 2 may hold anything, so count from its end. */
function parentOf(pid: number): number | undefined {
  try {
    const text = readFileSync(`/proc/${pid}/stat`, 'utf8');
    return Number(text.slice(text.lastIndexOf(')') + 2).split(' ')[1]);
  } catch (error) {
    if (isErrno(error, 'ENOENT', 'ESRCH')) return undefined;
    throw error;
  }
}
