// How the end of a command is told on the error stream.

import type { SessionOutcome } from './session-link.ts';

/** metav1.Status, as far as these clients read it (apimachinery, meta/v1/types.go). */
interface Status {
  readonly metadata: object;
  readonly status: 'Success' | 'Failure';
  readonly message?: string;
  readonly reason?: string;
  readonly details?: { readonly causes: readonly object[] };
  readonly code?: number;
}

/**
 * What to write on the error stream: from v4 on a status as JSON, before only of a failure, as text.
 * The exit code of an attached container is no outcome of the attaching.
 */
export function describeOutcome(
  outcome: SessionOutcome,
  { kind, statusForm }: { readonly kind: 'exec' | 'attach'; readonly statusForm: 'json' | 'text' },
): Buffer {
  const status = statusOf(outcome, kind);
  const text = statusForm === 'json' ? JSON.stringify(status) : (status.message ?? '');
  return Buffer.from(text);
}

function statusOf(outcome: SessionOutcome, kind: 'exec' | 'attach'): Status {
  if (outcome.kind === 'failure') {
    const what =
      kind === 'exec' ? 'error executing command in container' : 'error attaching to container';
    const message = `${what}: ${outcome.failure.message}`;
    return {
      metadata: {},
      status: 'Failure',
      message: `Internal error occurred: ${message}`,
      reason: 'InternalError',
      details: { causes: [{ message }] },
      code: 500,
    };
  }
  const { exitCode } = outcome.exit;
  if (exitCode === 0 || kind === 'attach') return { metadata: {}, status: 'Success' };
  return {
    metadata: {},
    status: 'Failure',
    message: `command terminated with non-zero exit code: exit code ${exitCode}`,
    reason: 'NonZeroExitCode',
    details: { causes: [{ reason: 'ExitCode', message: String(exitCode) }] },
  };
}
