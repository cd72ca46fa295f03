// What is executed, and the files of one execution.

import { join } from 'node:path';
import { readFileIfExists } from '@cribus/host/files.ts';

/** A command in a container, and which of its streams are wanted. */
export interface ExecOrder {
  readonly containerId: string;
  readonly cmd: readonly string[];
  readonly tty: boolean;
  readonly stdin: boolean;
  readonly stdout: boolean;
  readonly stderr: boolean;
  /** Zero: none. */
  readonly timeoutMs: number;
}

/** Of one execution, in the bundle; gone with it. */
export interface ExecFiles {
  readonly directory: string;
  readonly process: string;
  /** Written by the engine once the command runs. */
  readonly pid: string;
  /** The pid inside the container, of engines that signal by it. */
  readonly innerPid: string;
  /** Of the engine. */
  readonly log: string;
}

/** Names in a bundle that begin so are of executions. */
export const EXEC_PREFIX = 'exec-';

export function execFiles(bundle: string, name: string): ExecFiles {
  const directory = join(bundle, name);
  return {
    directory,
    process: join(directory, 'process.json'),
    pid: join(directory, 'pid'),
    innerPid: join(directory, 'inner-pid'),
    log: join(directory, 'log'),
  };
}

/** What a pid file says; zero when it isn't there. */
export async function readPid(file: string): Promise<number> {
  return Number((await readFileIfExists(file))?.toString('utf8').trim() ?? 0);
}
