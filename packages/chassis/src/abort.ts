// What an aborted signal means to a caller.

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
