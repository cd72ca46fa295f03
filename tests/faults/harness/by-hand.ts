// A service as a person or an init system runs it: a process of its own, which no `cribus up` knows.

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { openSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { Stack } from '../../e2e/harness/stack.ts';
import type { PartName } from './fault-node.ts';

export interface ServiceByHand {
  readonly pid: number;
  /** SIGTERM, or the signal given; resolves when the process is gone. */
  end(signal?: NodeJS.Signals): Promise<void>;
}

/** How a running part was started: its command line and environment. */
export interface CommandOfPart {
  readonly part: PartName;
  readonly argv: readonly string[];
  readonly env: Readonly<Record<string, string>>;
}

export async function commandOf(stack: Stack, part: PartName): Promise<CommandOfPart> {
  return commandOfPid(part, await stack.pidOf(part));
}

/** The same of one that `cribus up` may not know. */
export async function commandOfPid(part: PartName, pid: number): Promise<CommandOfPart> {
  const read = async (file: string) =>
    (await readFile(`/proc/${pid}/${file}`, 'utf8')).split('\0').filter((word) => word !== '');
  const pairs = (await read('environ')).map((pair): [string, string] => {
    const at = pair.indexOf('=');
    return [pair.slice(0, at), pair.slice(at + 1)];
  });
  return { part, argv: await read('cmdline'), env: Object.fromEntries(pairs) };
}

/** Starts a service with another one's command line; it logs where that one did. */
export function startByHand(stack: Stack, command: CommandOfPart): ServiceByHand {
  const log = openSync(join(stack.root, 'log', `${command.part}.log`), 'a');
  const [program = '', ...args] = command.argv;
  const child = spawn(program, args, { env: { ...command.env }, stdio: ['ignore', log, log] });
  const gone = once(child, 'exit');
  return {
    pid: child.pid ?? 0,
    async end(signal = 'SIGTERM') {
      child.kill(signal);
      await gone;
    },
  };
}
