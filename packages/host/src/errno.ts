// Recognising the one system error that was expected; every other one is rethrown.

/** True for a Node or koffi system error with one of these codes, as in `isErrno(e, 'ENOENT')`. */
export function isErrno(error: unknown, ...codes: readonly string[]): boolean {
  return (
    error instanceof Error &&
    'code' in error &&
    typeof error.code === 'string' &&
    codes.includes(error.code)
  );
}
