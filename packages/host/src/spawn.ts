// Starting programs by posix_spawn(3): child_process.spawn forks the whole process and blocks the
// event loop in proportion to its memory (1 to 30 ms); this takes 0.2 to 0.4 ms at any size.

export interface SpawnOptions {
  /** Absolute path, or a name looked up on PATH. */
  readonly command: string;
  readonly args: readonly string[];
  /** The whole environment of the child; default: PATH and nothing else of ours. */
  readonly env?: Readonly<Record<string, string>>;
  readonly cwd?: string;
  /** Given to the child's stdin, which is then closed; absent: /dev/null. */
  readonly stdin?: Uint8Array | 'pipe';
  /** Where output goes; `capture` collects up to `outputBytesMax`. Default capture, capture. */
  readonly stdout?: 'capture' | 'pipe' | 'null' | { readonly fd: number };
  readonly stderr?: 'capture' | 'pipe' | 'null' | { readonly fd: number };
  /** Further descriptors: child number to ours. */
  readonly fds?: Readonly<Record<number, number>>;
  /** Per captured stream; the rest is read and dropped. Default 1 MiB. */
  readonly outputBytesMax?: number;
}

export interface SpawnResult {
  /** Undefined when a signal ended it. */
  readonly exitCode: number | undefined;
  readonly signal: number | undefined;
  readonly stdout: Buffer;
  readonly stderr: Buffer;
  readonly truncated: boolean;
}

export interface Child {
  readonly pid: number;
  readonly stdin: import('node:net').Socket | undefined;
  readonly stdout: import('node:net').Socket | undefined;
  readonly stderr: import('node:net').Socket | undefined;
  /** Resolves when it has exited and its captured streams are at their end. Never rejects. */
  readonly exited: Promise<SpawnResult>;
  /** Signals the process, or its whole group (it leads a session of its own). */
  kill(signal: NodeJS.Signals | number, target?: 'process' | 'group'): void;
}

/** Starts a program in a session of its own. Throws when it can't be started (ENOENT, EACCES). */
export function spawn(_options: SpawnOptions): Child {
  throw new Error('not built');
}

/**
 * Runs a program to its end. When the signal aborts, the group is killed (SIGKILL), awaited, and
 * the signal's reason thrown. A non-zero exit is a result, not an error.
 */
export async function run(
  _options: SpawnOptions & { readonly signal: AbortSignal },
): Promise<SpawnResult> {
  throw new Error('not built');
}
