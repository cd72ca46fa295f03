// Programs that a person leaves in the foreground: started, watched by what they print, interrupted.

import { spawn } from 'node:child_process';
import type { CommandResult } from './stack.ts';

export interface Foreground {
  readonly pid: number;
  /** Everything that it has printed so far, both streams. */
  output(): string;
  /** Resolves when the output matches; rejects with the output when the program ends before. */
  prints(pattern: RegExp, budgetMs?: number): Promise<void>;
  /** To the process alone, or with `group` to its process group, as a terminal's Ctrl-C goes. */
  kill(signal: NodeJS.Signals, options?: { readonly group: boolean }): void;
  readonly ended: Promise<CommandResult>;
}

export interface ForegroundOptions {
  readonly cwd?: string;
  readonly environment?: Readonly<Record<string, string>>;
  /** On a pseudo-terminal of 100 columns (script(1)), else with its output in pipes. */
  readonly terminal?: boolean;
}

/** Starts a program as the leader of a process group. */
export function startForeground(
  command: string,
  args: readonly string[],
  options: ForegroundOptions = {},
): Foreground {
  const words = [command, ...args];
  const line = words.map((word) => `'${word.replaceAll("'", "'\\''")}'`).join(' ');
  const child = options.terminal
    ? spawn('script', ['-qefc', `stty cols 100; exec ${line}`, '/dev/null'], settings(options))
    : spawn(command, args, settings(options));
  let stdout = '';
  let stderr = '';
  const watchers = new Set<() => void>();
  const take = (keep: (chunk: Buffer) => void) => (chunk: Buffer) => {
    keep(chunk);
    for (const watcher of watchers) watcher();
  };
  child.stdout?.on(
    'data',
    take((chunk) => {
      stdout += chunk;
    }),
  );
  child.stderr?.on(
    'data',
    take((chunk) => {
      stderr += chunk;
    }),
  );
  const ended = new Promise<CommandResult>((resolve) => {
    child.on('close', (code) => resolve({ code, stdout, stderr }));
  });
  const output = () => stdout + stderr;
  return {
    pid: child.pid ?? 0,
    output,
    ended,
    prints: (pattern, budgetMs = 30_000) =>
      new Promise<void>((resolve, reject) => {
        const fail = (why: string) => reject(new Error(`${why} without ${pattern}:\n${output()}`));
        const timer = setTimeout(() => fail(`${budgetMs} ms passed`), budgetMs);
        const look = () => {
          if (!pattern.test(output())) return;
          clearTimeout(timer);
          watchers.delete(look);
          resolve();
        };
        watchers.add(look);
        look();
        void ended.then(() => {
          clearTimeout(timer);
          if (watchers.has(look)) fail('it ended');
        });
      }),
    kill: (signal, { group } = { group: false }) => {
      if (options.terminal && signal === 'SIGINT') child.stdin?.write('\x03');
      else process.kill(group ? -(child.pid ?? 0) : (child.pid ?? 0), signal);
    },
  };
}

function settings({ cwd, environment }: ForegroundOptions) {
  return {
    ...(cwd === undefined ? {} : { cwd }),
    env: { ...process.env, ...environment },
    stdio: ['pipe' as const, 'pipe' as const, 'pipe' as const],
    detached: true,
  };
}
