// Recognising the one system error that was expected; every other one is rethrown. And making such
// errors out of the errno of a direct call.
import { constants } from 'node:os';

/** True for a Node or koffi system error with one of these codes, as in `isErrno(e, 'ENOENT')`. */
export function isErrno(error: unknown, ...codes: readonly string[]): boolean {
  return (
    error instanceof Error &&
    'code' in error &&
    typeof error.code === 'string' &&
    codes.includes(error.code)
  );
}

/** An error of a system call: `code` is the name of the errno, as on Node's own system errors. */
export interface SystemError extends Error {
  readonly code: string;
  readonly errno: number;
  readonly syscall: string;
}

const CODE_BY_NUMBER = new Map<number, string>();
for (const [code, number] of Object.entries(constants.errno)) {
  // EAGAIN comes before EWOULDBLOCK, its other name, and Node itself reports EAGAIN.
  if (!CODE_BY_NUMBER.has(number)) CODE_BY_NUMBER.set(number, code);
}

/** The name of an errno (`ENOENT`), or `errno <number>` where Node knows none. */
export function errnoCode(number: number): string {
  return CODE_BY_NUMBER.get(number) ?? `errno ${number}`;
}

/** Makes the error of a failed system call; `detail` says on what it was called. */
export function systemError(syscall: string, errno: string | number, detail: string): SystemError {
  const code = typeof errno === 'string' ? errno : errnoCode(errno);
  const numbers: Readonly<Record<string, number>> = constants.errno;
  const number = typeof errno === 'number' ? errno : (numbers[errno] ?? 0);
  return Object.assign(new Error(`${code}: ${syscall} ${detail}`), {
    code,
    errno: -number,
    syscall,
  });
}
