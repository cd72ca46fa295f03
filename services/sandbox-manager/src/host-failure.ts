// System errors of the host as failures that name the stage and the sandbox.

import { Failure, type FailureKind, isFailure } from '@cribus/contracts/failure.ts';

/** The host is out of something: space, descriptors, namespaces (unshare(2) says ENOSPC too). */
const OUT_OF = ['ENOSPC', 'EDQUOT', 'EMFILE', 'ENFILE', 'ENOMEM', 'EAGAIN'];

/** A failure for an error with an errno code; everything else is answered as it is. */
export function hostFailure(
  error: unknown,
  where: { readonly stage: string; readonly sandboxId: string; readonly kind?: FailureKind },
): unknown {
  if (isFailure(error) || !(error instanceof Error) || !('code' in error)) return error;
  const { code } = error;
  if (typeof code !== 'string' || !/^E[A-Z0-9]+$/.test(code)) return error;
  const kind = OUT_OF.includes(code) ? 'limit' : (where.kind ?? 'wrong_state');
  return new Failure(kind, `sandbox ${where.sandboxId}: ${error.message}`, {
    stage: where.stage,
    cause: error,
  });
}
