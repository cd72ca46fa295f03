// Processes of the host by identity (boot id, pid, start time), never by pid alone.

/** As records.proto has it. */
export interface ProcessIdentity {
  pid: number;
  startTimeTicks: bigint;
  bootId: string;
}

/** /proc/sys/kernel/random/boot_id, read once. */
export function bootId(): string {
  throw new Error('not built');
}

/** The identity of a living process; undefined when there is none (a zombie counts as dead). */
export function identify(_pid: number): ProcessIdentity | undefined {
  throw new Error('not built');
}

/** True while exactly this process lives (and is no zombie). */
export function isAlive(_identity: ProcessIdentity): boolean {
  throw new Error('not built');
}

/** Signals exactly this process through a pidfd; false when it is gone already. */
export function signalProcess(
  _identity: ProcessIdentity,
  _signal: NodeJS.Signals | number,
): boolean {
  throw new Error('not built');
}

/** Calls back once for each watched process that ends: pidfds, polled together in one system call. */
export interface ProcessWatch {
  /** Calls `onExit` within `intervalMs` of the end, or at once when it is gone already. */
  add(identity: ProcessIdentity, onExit: () => void): { close(): void };
  close(): void;
}
export function watchProcesses(_options: { readonly intervalMs: number }): ProcessWatch {
  throw new Error('not built');
}

/** Resolves when the process is gone; rejects with the signal's reason. */
export async function waitForExit(_identity: ProcessIdentity, _signal: AbortSignal): Promise<void> {
  throw new Error('not built');
}

/** All living pids whose cgroup, ancestors or environment we don't care about: just /proc's numbers. */
export function listPids(): number[] {
  throw new Error('not built');
}
/** The NUL-separated command line of a process; empty when it is gone. */
export function commandLine(_pid: number): string[] {
  throw new Error('not built');
}
