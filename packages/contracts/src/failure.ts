// The closed set of ways in which a verb can fail, and the one place where each is given its gRPC
// code. Anything that is thrown and is not a Failure is a bug: it becomes INTERNAL with an incident
// id, and its cause goes to the log only.

/** gRPC status codes by name (grpc/doc/statuscodes.md); numbers so that only the gateway needs gRPC. */
export const GRPC_CODE = {
  OK: 0,
  CANCELLED: 1,
  UNKNOWN: 2,
  INVALID_ARGUMENT: 3,
  DEADLINE_EXCEEDED: 4,
  NOT_FOUND: 5,
  ALREADY_EXISTS: 6,
  PERMISSION_DENIED: 7,
  RESOURCE_EXHAUSTED: 8,
  FAILED_PRECONDITION: 9,
  ABORTED: 10,
  UNIMPLEMENTED: 12,
  INTERNAL: 13,
  UNAVAILABLE: 14,
  DATA_LOSS: 15,
  UNAUTHENTICATED: 16,
} as const;

/**
 * What each kind means to a caller, and whether asking again can help.
 *
 * `unavailable` must never be used for "gone": the kubelet's log follower takes UNAVAILABLE for
 * "still running". `kubelet_reason` is UNKNOWN because the kubelet's client strips the "rpc error"
 * wrapper only from UNKNOWN, and matches the reason as a prefix of what is left (cri-client,
 * remote_image.go; kubelet, evalCRIPullErr).
 */
export const FAILURES = {
  invalid_argument: { grpc: GRPC_CODE.INVALID_ARGUMENT, retryable: false },
  not_found: { grpc: GRPC_CODE.NOT_FOUND, retryable: false },
  already_exists: { grpc: GRPC_CODE.ALREADY_EXISTS, retryable: false },
  wrong_state: { grpc: GRPC_CODE.FAILED_PRECONDITION, retryable: false },
  conflict: { grpc: GRPC_CODE.ABORTED, retryable: true },
  limit: { grpc: GRPC_CODE.RESOURCE_EXHAUSTED, retryable: false },
  denied: { grpc: GRPC_CODE.PERMISSION_DENIED, retryable: false },
  unauthenticated: { grpc: GRPC_CODE.UNAUTHENTICATED, retryable: false },
  timeout: { grpc: GRPC_CODE.DEADLINE_EXCEEDED, retryable: false },
  cancelled: { grpc: GRPC_CODE.CANCELLED, retryable: false },
  unavailable: { grpc: GRPC_CODE.UNAVAILABLE, retryable: true },
  unsupported: { grpc: GRPC_CODE.UNIMPLEMENTED, retryable: false },
  kubelet_reason: { grpc: GRPC_CODE.UNKNOWN, retryable: false },
  data_loss: { grpc: GRPC_CODE.DATA_LOSS, retryable: false },
  bug: { grpc: GRPC_CODE.INTERNAL, retryable: false },
} as const satisfies Record<string, { grpc: number; retryable: boolean }>;

export type FailureKind = keyof typeof FAILURES;

export interface FailureDetails {
  /** Where in the verb it happened, as in "CNI ADD" or "runc create"; prefixed to the message. */
  readonly stage?: string;
  /** For the log only: never sent to a caller. */
  readonly cause?: unknown;
}

/** An operating error that a caller can act on. The message names the stage and the object. */
export class Failure extends Error {
  override readonly name = 'Failure';
  readonly kind: FailureKind;

  constructor(kind: FailureKind, message: string, details: FailureDetails = {}) {
    super(
      details.stage === undefined ? message : `${details.stage}: ${message}`,
      details.cause === undefined ? undefined : { cause: details.cause },
    );
    this.kind = kind;
  }

  get grpcCode(): number {
    return FAILURES[this.kind].grpc;
  }
}

/** True for a Failure of any of these kinds; by name, so that bundled copies recognise each other. */
export function isFailure(error: unknown, ...kinds: readonly FailureKind[]): error is Failure {
  return (
    error instanceof Error &&
    error.name === 'Failure' &&
    'kind' in error &&
    (kinds.length === 0 || kinds.includes(error.kind as FailureKind))
  );
}

/** Headers that carry a failure in a bus reply; the first two are NATS' micro-service convention. */
export const FAILURE_HEADERS = {
  code: 'Nats-Service-Error-Code',
  message: 'Nats-Service-Error',
  kind: 'Cribus-Failure-Kind',
} as const;

/** Reads a failure out of reply headers; undefined when the reply is a success. */
export function failureFromHeaders(get: (name: string) => string): Failure | undefined {
  const kind = get(FAILURE_HEADERS.kind);
  if (kind === '') return undefined;
  const known = kind in FAILURES ? (kind as FailureKind) : 'bug';
  return new Failure(known, decodeURIComponent(get(FAILURE_HEADERS.message)));
}

/** The header values of a failure. The message is percent-encoded: headers can't hold newlines. */
export function failureToHeaders(failure: Failure): Record<string, string> {
  return {
    [FAILURE_HEADERS.code]: String(failure.grpcCode),
    [FAILURE_HEADERS.message]: encodeURIComponent(failure.message),
    [FAILURE_HEADERS.kind]: failure.kind,
  };
}
