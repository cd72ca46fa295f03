// A whole stack of its own for a test: started by the command that people type, on a root of its own,
// and gone without a trace after.

import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { type Cri, connectCri } from './cri.ts';
import { patient } from './patience.ts';

export const PROJECT_ROOT = dirname(dirname(dirname(dirname(fileURLToPath(import.meta.url)))));
export const CRIBUS = join(PROJECT_ROOT, 'bin', 'cribus');

export interface CommandResult {
  readonly code: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

export interface StackStatus {
  readonly parts: readonly {
    readonly name: string;
    readonly pid: number;
    readonly state: string;
  }[];
  readonly endpoint: string;
}

export interface Stack {
  readonly root: string;
  readonly cri: Cri;
  /** Runs `cribus ARGS --root DIR`. */
  cribus(...args: readonly string[]): Promise<CommandResult>;
  status(): Promise<StackStatus>;
  /** The pid of one part, by its name in `cribus status`. */
  pidOf(part: string): Promise<number>;
  /** `down --pods`, then the root is removed. */
  destroy(): Promise<void>;
}

export interface StackOptions {
  /** DIR/etc/cribus.toml. */
  readonly config?: string;
  /** Name of the directory below a fresh temporary one; may hold spaces and colons. */
  readonly name?: string;
  readonly upArgs?: readonly string[];
  readonly environment?: Readonly<Record<string, string>>;
}

/** Starts a detached stack and waits until it says that it is ready. */
export async function startStack(options: StackOptions = {}): Promise<Stack> {
  const base = await mkdtemp(join(tmpdir(), 'cribus-e2e-'));
  const root = join(base, options.name ?? 'node');
  await mkdir(join(root, 'etc'), { recursive: true });
  if (options.config !== undefined)
    await writeFile(join(root, 'etc', 'cribus.toml'), options.config);
  const environment = options.environment ?? {};
  const started = await runCommand(
    CRIBUS,
    ['up', '--root', root, '--detach', ...(options.upArgs ?? [])],
    environment,
  );
  if (started.code !== 0) {
    await runCommand(CRIBUS, ['down', '--pods', '--root', root]);
    assert.fail(`cribus up failed: ${started.stdout}${started.stderr}`);
  }
  const cri = connectCri(`unix://${join(root, 'run', 'cribus.sock')}`);
  const stack: Stack = {
    root,
    cri,
    cribus: (...args) => runCommand(CRIBUS, [...args, '--root', root], environment),
    status: async () => JSON.parse((await stack.cribus('status', '--json')).stdout) as StackStatus,
    pidOf: async (part) => {
      const found = (await stack.status()).parts.find((one) => one.name === part);
      assert.ok(found !== undefined, `no part ${part}`);
      return found.pid;
    },
    destroy: async () => {
      cri.close();
      const down = await runCommand(CRIBUS, ['down', '--pods', '--root', root]);
      assert.equal(down.code, 0, `cribus down --pods: ${down.stdout}${down.stderr}`);
      await rm(base, { recursive: true, force: true });
    },
  };
  return stack;
}

/** Runs a program to its end, with its output. */
export function runCommand(
  command: string,
  args: readonly string[],
  environment: Readonly<Record<string, string>> = {},
  options: { readonly cwd?: string; readonly timeoutMs?: number } = {},
): Promise<CommandResult> {
  return new Promise((resolve, reject) => {
    const child = spawn(command, args, {
      env: { ...process.env, ...environment },
      stdio: ['ignore', 'pipe', 'pipe'],
      ...(options.cwd === undefined ? {} : { cwd: options.cwd }),
      timeout: options.timeoutMs ?? 120_000,
      killSignal: 'SIGKILL',
    });
    collect(child, resolve);
    child.on('error', reject);
  });
}

function collect(child: ChildProcess, resolve: (result: CommandResult) => void): void {
  let stdout = '';
  let stderr = '';
  child.stdout?.on('data', (chunk) => {
    stdout += chunk;
  });
  child.stderr?.on('data', (chunk) => {
    stderr += chunk;
  });
  child.on('close', (code) => resolve({ code, stdout, stderr }));
}

/** Polls until `check` answers something; fails with `what` after the budget. */
export async function eventually<T>(
  what: string,
  check: () => Promise<T | undefined | false>,
  budgetMs = 10_000,
): Promise<T> {
  const deadline = performance.now() + patient(budgetMs);
  let last: unknown;
  for (;;) {
    try {
      const found = await check();
      if (found !== undefined && found !== false) return found;
    } catch (error) {
      last = error;
    }
    if (performance.now() > deadline) {
      assert.fail(
        `${what}: not within ${budgetMs} ms${last instanceof Error ? ` (${last.message})` : ''}`,
      );
    }
    await sleep(50);
  }
}

/** The lines of a CRI log file, parsed: `<time> <stream> <P|F> <text>`. */
export async function readLog(
  path: string,
): Promise<{ stream: string; tag: string; text: string }[]> {
  const content = await readFile(path, 'utf8');
  return content
    .split('\n')
    .filter((line) => line !== '')
    .map((line) => {
      const [, stream = '', tag = '', ...rest] = line.split(' ');
      return { stream, tag, text: rest.join(' ') };
    });
}
