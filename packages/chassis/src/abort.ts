// What an aborted signal means to a caller, and to one that waits.

import { Failure, isFailure } from '@cribus/contracts/failure.ts';

/**
 * The failure for a wait that its signal ended: the reason itself when it is a Failure, `timeout`
 * for a TimeoutError (AbortSignal.timeout, Clock.timeout), `cancelled` for everything else.
 */
export function failureOfAbort(signal: AbortSignal, what: string): Failure {
  const reason: unknown = signal.reason;
  if (isFailure(reason)) return reason;
  if (reason instanceof Error && reason.name === 'TimeoutError') {
    return new Failure('timeout', `${what} did not answer in time`, { cause: reason });
  }
  return new Failure('cancelled', `${what}: the caller went away`, { cause: reason });
}

/** The promise's outcome, or the signal's reason; the work itself goes on. */
export async function orAborted<T>(work: Promise<T>, signal: AbortSignal): Promise<T> {
  signal.throwIfAborted();
  let onAbort: (() => void) | undefined;
  const aborted = new Promise<never>((_resolve, reject) => {
    onAbort = () => reject(signal.reason);
    signal.addEventListener('abort', onAbort, { once: true });
  });
  try {
    return await Promise.race([work, aborted]);
  } finally {
    if (onAbort !== undefined) signal.removeEventListener('abort', onAbort);
  }
}
