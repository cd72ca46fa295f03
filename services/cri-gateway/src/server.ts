// The gRPC server on its unix socket.

import { existsSync } from 'node:fs';
import { mkdir, unlink } from 'node:fs/promises';
import { connect, createServer } from 'node:net';
import { dirname } from 'node:path';
import { Failure, GRPC_CODE } from '@cribus/contracts/failure.ts';
import {
  ImageServiceService,
  RuntimeServiceService,
} from '@cribus/contracts/gen/cri/v1/services.ts';
import { SOCKET_PATH_BYTES_MAX } from '@cribus/contracts/paths.ts';
import { MESSAGE_BYTES_MAX } from '@cribus/contracts/subjects.ts';
import { isErrno } from '@cribus/host/errno.ts';
import {
  Metadata,
  Server,
  ServerCredentials,
  type ServiceDefinition,
  type UntypedServiceImplementation,
} from '@grpc/grpc-js';
import { type Wrapping, wrapVerb } from './call.ts';
import { wrapStream } from './stream-call.ts';
import { type CriVerbTable, criVerbs, ENCODED_METHODS, type Missing } from './verb-table.ts';

/** Only root talks to the runtime. */
const SOCKET_UMASK = 0o177;
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
 * a path that is too long for a unix socket, already_exists when another server answers there.
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
      : await adoptSocket(server, listenFd);
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
async function adoptSocket(server: Server, fd: number): Promise<() => void> {
  const injector = server.createConnectionInjector(ServerCredentials.createInsecure());
  const listening = createServer((connection) => injector.injectConnection(connection));
  await new Promise<void>((resolve, reject) => {
    listening.once('error', reject);
    listening.listen({ fd }, resolve);
  });
  return () => listening.close();
}

async function bindSocket(server: Server, path: string): Promise<() => void> {
  checkSocketPath(path);
  await mkdir(dirname(path), { recursive: true });
  await removeStaleSocket(path);
  const umask = process.umask(SOCKET_UMASK);
  try {
    await new Promise<void>((resolve, reject) => {
      server.bindAsync(`unix:${path}`, ServerCredentials.createInsecure(), (error) => {
        if (error === null) resolve();
        else reject(new Failure('wrong_state', `${path}: ${error.message}`, { stage: 'listen' }));
      });
    });
  } finally {
    process.umask(umask);
  }
  // grpc-js stops listening with the server.
  return () => undefined;
}

/** Raises invalid_argument for a path that Linux would cut (unix(7)). */
export function checkSocketPath(path: string): void {
  const bytes = Buffer.byteLength(path);
  if (bytes <= SOCKET_PATH_BYTES_MAX) return;
  throw new Failure(
    'invalid_argument',
    `${path} has ${bytes} bytes; a unix socket's path has at most ${SOCKET_PATH_BYTES_MAX}`,
    { stage: 'gateway.socket' },
  );
}

/** A socket that nobody answers on is left over from a process that was killed. */
async function removeStaleSocket(path: string): Promise<void> {
  if (!existsSync(path)) return;
  const answered = await new Promise<boolean>((resolve) => {
    const probe = connect(path);
    probe.once('connect', () => {
      probe.destroy();
      resolve(true);
    });
    probe.once('error', () => resolve(false));
  });
  if (answered) {
    throw new Failure('already_exists', `another server answers on ${path}`, { stage: 'listen' });
  }
  try {
    await unlink(path);
  } catch (error) {
    if (!isErrno(error, 'ENOENT')) throw error;
  }
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
