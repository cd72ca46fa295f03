// A CRI client as any caller has it: one unary call by the name that the service definition gives it.

import {
  ImageServiceService,
  RuntimeServiceService,
} from '@cribus/contracts/gen/cri/v1/services.ts';
import {
  Client,
  type ClientReadableStream,
  credentials,
  Metadata,
  type MethodDefinition,
  type ServiceError,
} from '@grpc/grpc-js';

const SERVICES = { ...RuntimeServiceService, ...ImageServiceService };
export type Method = keyof typeof SERVICES;
export type RequestOfMethod<M extends Method> = Parameters<
  (typeof SERVICES)[M]['requestSerialize']
>[0];
export type ResponseOfMethod<M extends Method> = ReturnType<
  (typeof SERVICES)[M]['responseDeserialize']
>;

const MESSAGE_BYTES_MAX = 16 * 1024 * 1024;

export interface CallOptions {
  readonly timeoutMs?: number;
  /** Further headers of the call, as a kubelet that traces sends `traceparent`. */
  readonly headers?: Readonly<Record<string, string>>;
}

export interface Cri {
  readonly endpoint: string;
  /** Raises grpc-js' ServiceError with `code` and `details`. */
  call<M extends Method>(
    method: M,
    request: RequestOfMethod<M>,
    options?: CallOptions,
  ): Promise<ResponseOfMethod<M>>;
  /** The answers of a streaming method as they come. */
  stream<M extends Method>(
    method: M,
    request: RequestOfMethod<M>,
  ): ClientReadableStream<ResponseOfMethod<M>>;
  close(): void;
}

/** A client of a CRI socket, as `unix:///run/cribus/cribus.sock`. */
export function connectCri(endpoint: string): Cri {
  const client = new Client(endpoint, credentials.createInsecure(), {
    'grpc.max_receive_message_length': MESSAGE_BYTES_MAX,
    'grpc.max_send_message_length': MESSAGE_BYTES_MAX,
    // A gateway that was restarted is tried again at once, as a kubelet's next call would.
    'grpc.initial_reconnect_backoff_ms': 50,
    'grpc.max_reconnect_backoff_ms': 200,
  });
  return {
    endpoint,
    call<M extends Method>(method: M, request: RequestOfMethod<M>, options: CallOptions = {}) {
      const definition = SERVICES[method] as unknown as MethodDefinition<
        RequestOfMethod<M>,
        ResponseOfMethod<M>
      >;
      const metadata = new Metadata();
      for (const [name, value] of Object.entries(options.headers ?? {})) metadata.set(name, value);
      return new Promise<ResponseOfMethod<M>>((resolve, reject) => {
        client.makeUnaryRequest(
          definition.path,
          definition.requestSerialize,
          definition.responseDeserialize,
          request,
          metadata,
          { deadline: Date.now() + (options.timeoutMs ?? 120_000) },
          (error: ServiceError | null, response?: ResponseOfMethod<M>) => {
            if (error !== null || response === undefined) reject(error ?? new Error('no response'));
            else resolve(response);
          },
        );
      });
    },
    stream<M extends Method>(method: M, request: RequestOfMethod<M>) {
      const definition = SERVICES[method] as unknown as MethodDefinition<
        RequestOfMethod<M>,
        ResponseOfMethod<M>
      >;
      return client.makeServerStreamRequest(
        definition.path,
        definition.requestSerialize,
        definition.responseDeserialize,
        request,
      );
    },
    close: () => client.close(),
  };
}

/** True for a ServiceError with this gRPC code. */
export function hasCode(error: unknown, code: number): boolean {
  return error instanceof Error && 'code' in error && error.code === code;
}
