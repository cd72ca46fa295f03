// How the thread that writes an archive's entries tells the main one that it failed: classes of errors
// don't cross threads.

export interface ThreadFailure {
  readonly kind: 'failed';
  /** The archive itself is at fault. */
  readonly broken: boolean;
  /** Of a system call or of zlib. */
  readonly code: string;
  readonly message: string;
}

export function threadFailure(error: unknown): ThreadFailure {
  const cause = error instanceof Error ? error : new Error(String(error));
  const code = 'code' in cause && typeof cause.code === 'string' ? cause.code : '';
  return { kind: 'failed', broken: cause.name === 'Failure', code, message: cause.message };
}
