// Asks the gateway what crictl would ask it, over the CRI socket.

import { Failure, GRPC_CODE } from '@cribus/contracts/failure.ts';
import {
  ImageServiceService,
  RuntimeServiceService,
} from '@cribus/contracts/gen/cri/v1/services.ts';
import { MESSAGE_BYTES_MAX } from '@cribus/contracts/subjects.ts';
import { systemClock } from '@cribus/host/clock.ts';
import { Client, credentials, Metadata, type ServiceError } from '@grpc/grpc-js';

const METHODS = { ...RuntimeServiceService, ...ImageServiceService };
type Methods = typeof METHODS;
export type CriMethod = {
  [M in keyof Methods]: Methods[M]['responseStream'] extends false ? M : never;
}[keyof Methods];
export type CriRequest<M extends CriMethod> = Parameters<Methods[M]['requestSerialize']>[0];
export type CriResponse<M extends CriMethod> = ReturnType<Methods[M]['responseDeserialize']>;

export interface CriClient {
  /**
   * Makes one call. Raises unavailable when nobody serves the socket, timeout after `timeoutMs`
   * (0: none), and for every other status a Failure with the gateway's own message.
   */
  call<M extends CriMethod>(
    method: M,
    request: CriRequest<M>,
    options?: { readonly timeoutMs?: number; readonly signal?: AbortSignal },
  ): Promise<CriResponse<M>>;
  close(): void;
}

const CALL_TIMEOUT_MS = 10_000;

/** A client of a stack's CRI socket; it connects at the first call. `startHint`: how to start it. */
export function createCriClient(socket: string, startHint = 'cribus up'): CriClient {
  const client = new Client(`unix:${socket}`, credentials.createInsecure(), {
    'grpc.max_receive_message_length': MESSAGE_BYTES_MAX,
    'grpc.max_send_message_length': MESSAGE_BYTES_MAX,
    // A gateway that starts is found at once, not after gRPC's usual second.
    'grpc.initial_reconnect_backoff_ms': 100,
    'grpc.max_reconnect_backoff_ms': 1_000,
  });
  return {
    call: (method, request, options = {}) => {
      const { timeoutMs = CALL_TIMEOUT_MS, signal } = options;
      const row = METHODS[method] as unknown as {
        readonly path: string;
        readonly requestSerialize: (value: unknown) => Buffer;
        readonly responseDeserialize: (bytes: Buffer) => never;
      };
      // gRPC wants a point of the wall clock.
      const deadline = Number(systemClock.nowNs() / 1_000_000n) + timeoutMs;
      return new Promise((done, fail) => {
        const pending = client.makeUnaryRequest(
          row.path,
          row.requestSerialize,
          row.responseDeserialize,
          request,
          new Metadata(),
          timeoutMs === 0 ? {} : { deadline },
          (error, response) => {
            signal?.removeEventListener('abort', cancel);
            if (error !== null) fail(failureOf(error, socket, startHint));
            else done(response as never);
          },
        );
        const cancel = () => pending.cancel();
        signal?.addEventListener('abort', cancel, { once: true });
        if (signal?.aborted === true) cancel();
      });
    },
    close: () => client.close(),
  };
}

const KIND_OF_CODE = {
  [GRPC_CODE.INVALID_ARGUMENT]: 'invalid_argument',
  [GRPC_CODE.NOT_FOUND]: 'not_found',
  [GRPC_CODE.ALREADY_EXISTS]: 'already_exists',
  [GRPC_CODE.FAILED_PRECONDITION]: 'wrong_state',
  [GRPC_CODE.ABORTED]: 'conflict',
  [GRPC_CODE.RESOURCE_EXHAUSTED]: 'limit',
  [GRPC_CODE.PERMISSION_DENIED]: 'denied',
  [GRPC_CODE.UNAUTHENTICATED]: 'unauthenticated',
  [GRPC_CODE.DEADLINE_EXCEEDED]: 'timeout',
  [GRPC_CODE.CANCELLED]: 'cancelled',
  [GRPC_CODE.UNAVAILABLE]: 'unavailable',
  [GRPC_CODE.UNIMPLEMENTED]: 'unsupported',
  [GRPC_CODE.UNKNOWN]: 'kubelet_reason',
  [GRPC_CODE.DATA_LOSS]: 'data_loss',
} as const;

function failureOf(error: ServiceError, socket: string, startHint: string): Failure {
  const kind = KIND_OF_CODE[error.code as keyof typeof KIND_OF_CODE] ?? 'bug';
  // gRPC's own words, when nobody listens on the socket.
  if (
    kind === 'unavailable' &&
    /^(No connection established|Connection dropped)/.test(error.details)
  ) {
    return new Failure('unavailable', `nobody serves ${socket}: start it with "${startHint}"`);
  }
  return new Failure(kind, error.details || error.message);
}
