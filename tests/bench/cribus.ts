// This stack as a subject: started by the command that people type, on a root of its own.

import { readdirSync, readFileSync } from 'node:fs';
import { pull } from '../e2e/harness/pods.ts';
import { startStack } from '../e2e/harness/stack.ts';
import type { Subject } from './subject.ts';

/** Starts it and pulls the image. */
export async function startCribus(options: {
  readonly image: string;
  readonly cgroupParent: string;
}): Promise<Subject> {
  const stack = await startStack();
  try {
    await pull(stack.cri, options.image);
  } catch (error) {
    await stack.destroy();
    throw error;
  }
  return {
    name: 'cribus',
    cri: stack.cri,
    ...options,
    processes: async () => {
      const { parts } = await stack.status();
      const up = parts.map((part) => parentOf(part.pid)).filter((pid) => pid > 1);
      return [...new Set([...up, ...parts.map((part) => part.pid), ...monitorsBelow(stack.root)])];
    },
    stop: () => stack.destroy(),
  };
}

function parentOf(pid: number): number {
  return Number(/^PPid:\s+(\d+)/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1] ?? 0);
}

/** Each conmon of this stack. */
export function monitorsBelow(root: string): number[] {
  return readdirSync('/proc')
    .map(Number)
    .filter((pid) => pid > 0 && isMonitor(pid, root));
}

function isMonitor(pid: number, root: string): boolean {
  try {
    return (
      readFileSync(`/proc/${pid}/comm`, 'utf8').trim() === 'conmon' &&
      readFileSync(`/proc/${pid}/cmdline`, 'utf8').includes(root)
    );
  } catch {
    return false;
  }
}
