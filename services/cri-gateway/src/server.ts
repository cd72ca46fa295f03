// The gRPC server on its unix socket.

import { statSync } from 'node:fs';
import { createServer } from 'node:net';
import { Failure, GRPC_CODE } from '@cribus/contracts/failure.ts';
import {
  ImageServiceService,
  RuntimeServiceService,
} from '@cribus/contracts/gen/cri/v1/services.ts';
import { MESSAGE_BYTES_MAX } from '@cribus/contracts/subjects.ts';
import { boundPath } from '@cribus/host/sockets.ts';
import {
  Metadata,
  Server,
  ServerCredentials,
  type ServiceDefinition,
  type UntypedServiceImplementation,
} from '@grpc/grpc-js';
import { type Wrapping, wrapVerb } from './call.ts';
import { wrapStream } from './stream-call.ts';
import { listenAsRoot, preparePath } from './unix-socket.ts';
import { type CriVerbTable, criVerbs, ENCODED_METHODS, type Missing } from './verb-table.ts';

/** A kubelet and a few tools; more streams than that on one connection wait. */
const STREAMS_MAX = 1_000;

/** For the last answers to leave before connections are cut. */
const REFUSAL_MS = 100;

export interface CriServer {
  /** Stops taking calls, lets running ones end until `drained` aborts, then refuses the rest. */
  close(drained: AbortSignal): Promise<void>;
}

/**
 * Serves CRI on the socket that the service manager passed (`listenFd`), so that a restart of the
 * gateway refuses no connection; else on the path of the configuration. Raises invalid_argument for
 * a path that is too long for a unix socket or not the one of the socket that was passed,
 * already_exists when another server answers there.
 */
export async function serveCri(
  service: Omit<Wrapping, 'stopping' | 'leaving'>,
  listenFd?: number,
): Promise<CriServer> {
  const ending = new AbortController();
  const leaving = new AbortController();
  const options = { ...service, stopping: ending.signal, leaving: leaving.signal };
  const server = createCriServer(options);
  const stopListening =
    listenFd === undefined
      ? await bindSocket(server, options.gateway.config.gateway.socket)
      : await adoptSocket(server, listenFd, options.gateway.config.gateway.socket);
  return {
    close: (drained) =>
      new Promise((resolve) => {
        const why = new Failure('unavailable', 'the gateway is ending; ask again');
        leaving.abort(why);
        const cut = async (): Promise<void> => {
          ending.abort(why);
          // The refusals are written first.
          await options.gateway.clock.sleep(REFUSAL_MS);
          server.forceShutdown();
        };
        drained.addEventListener('abort', () => void cut(), { once: true });
        stopListening();
        server.tryShutdown(() => resolve());
      }),
  };
}

/** What connects while nobody accepts waits in the manager's socket for the next gateway. */
async function adoptSocket(server: Server, fd: number, wanted: string): Promise<() => void> {
  const path = boundPath(fd);
  if (path !== undefined && !isSameFile(path, wanted)) {
    throw new Failure(
      'invalid_argument',
      `gateway.socket is ${wanted}, but the service manager passes ${path}: change ListenStream of its socket unit too`,
      { stage: 'listen' },
    );
  }
  const injector = server.createConnectionInjector(ServerCredentials.createInsecure());
  const listening = createServer((connection) => injector.injectConnection(connection));
  await new Promise<void>((resolve, reject) => {
    listening.once('error', reject);
    listening.listen({ fd }, resolve);
  });
  return () => listening.close();
}

/** A directory of the path may be a link, as /var/run. */
function isSameFile(one: string, other: string): boolean {
  const [a, b] = [one, other].map((path) => statSync(path, { throwIfNoEntry: false }));
  return one === other || (a !== undefined && a.ino === b?.ino && a.dev === b.dev);
}

async function bindSocket(server: Server, path: string): Promise<() => void> {
  await preparePath(path, 'gateway.socket');
  await listenAsRoot(
    () =>
      new Promise<void>((resolve, reject) => {
        server.bindAsync(`unix:${path}`, ServerCredentials.createInsecure(), (error) => {
          if (error === null) resolve();
          else reject(new Failure('wrong_state', `${path}: ${error.message}`, { stage: 'listen' }));
        });
      }),
  );
  // grpc-js stops listening with the server.
  return () => undefined;
}

/** The server with both services, not listening yet. */
export function createCriServer(options: Wrapping): Server {
  const server = new Server({
    'grpc.max_receive_message_length': MESSAGE_BYTES_MAX,
    'grpc.max_send_message_length': MESSAGE_BYTES_MAX,
    'grpc.max_concurrent_streams': STREAMS_MAX,
  });
  const verbs = criVerbs(options.gateway);
  for (const service of [RuntimeServiceService, ImageServiceService]) {
    const definition = service as ServiceDefinition;
    server.addService(encodedAsIs(definition), implement(definition, verbs, options));
  }
  return server;
}

/** The same methods, but the lists are handed over as the bytes that they are. */
function encodedAsIs(service: ServiceDefinition): ServiceDefinition {
  return Object.fromEntries(
    Object.entries(service).map(([name, method]) => [
      name,
      ENCODED_METHODS.has(name)
        ? { ...method, responseSerialize: (bytes: Buffer): Buffer => bytes }
        : method,
    ]),
  );
}

function implement(
  service: ServiceDefinition,
  verbs: CriVerbTable,
  options: Wrapping,
): UntypedServiceImplementation {
  const implementation: UntypedServiceImplementation = {};
  for (const [name, method] of Object.entries(service)) {
    const entry = verbs[name as keyof CriVerbTable] as
      | Missing
      | { readonly stream: never; readonly endless: boolean }
      | { readonly verb: never; readonly mutates: boolean };
    // The name as CRI spells it, from /runtime.v1.RuntimeService/Name.
    const criName = method.path.slice(method.path.lastIndexOf('/') + 1);
    if ('stream' in entry) {
      implementation[name] = wrapStream(criName, { ...options, ...entry });
    } else if ('verb' in entry) {
      implementation[name] = wrapVerb(criName, { ...options, ...entry });
    } else if (method.responseStream) {
      implementation[name] = (call: { emit(event: 'error', status: object): void }) => {
        call.emit('error', unimplemented(criName, entry.missing));
      };
    } else {
      const missing = async (): Promise<never> => {
        throw new Failure('unsupported', `${criName}: ${entry.missing}`);
      };
      implementation[name] = wrapVerb(criName, { ...options, mutates: false, verb: missing });
    }
  }
  return implementation;
}

function unimplemented(criName: string, sentence: string): object {
  return {
    code: GRPC_CODE.UNIMPLEMENTED,
    details: `${criName}: ${sentence}`,
    metadata: new Metadata(),
  };
}
