// What the kernel wrote into its log (syslog(2)), for what it tells nowhere else any more.
import { libc } from './libc.ts';

/** SYSLOG_ACTION_READ_ALL: the last messages that are there, taking none away. */
const READ_ALL = 3;
/** The kernel keeps 128 KiB to 1 MiB, as it was configured. */
const LOG_BYTES_MAX = 1024 * 1024;

/** The last of the kernel's messages, a line each; empty where we may not read them. */
export function readKernelLog(): string {
  const text = Buffer.allocUnsafe(LOG_BYTES_MAX);
  const bytes = libc().klogctl(READ_ALL, text, text.length);
  return text.toString('latin1', 0, Math.max(0, bytes));
}

/**
 * True where the log has this process as one that was killed for memory, by whichever limit, or by none
 * (mm/oom_kill.c, "Out of memory: Killed process 1 (name)", and the same of a memory cgroup). What was
 * killed in a PID namespace has the host's number here.
 */
export function wasKilledForMemory(pid: number, log: string = readKernelLog()): boolean {
  return new RegExp(`out of memory.*: Killed process ${pid} \\(`, 'i').test(log);
}
