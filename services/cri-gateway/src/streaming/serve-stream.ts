// A client that came for its stream: which protocol it speaks, and what is done with it. Loaded with
// the first one, as an idle gateway has no use for WebSockets and compressed headers.

import type { IncomingMessage } from 'node:http';
import { Socket } from 'node:net';
import type { Duplex } from 'node:stream';
import { Failure, isFailure } from '@cribus/contracts/failure.ts';
import type { Clock } from '@cribus/host/clock.ts';
import { withJoinedSignal } from '@cribus/host/joined-signals.ts';
import { type WebSocket, WebSocketServer } from 'ws';
import type { CommandAsk, ForwardAsk, StreamAsk } from './ask.ts';
import { type ClientSocket, createClientSocket } from './client-socket.ts';
import type { ClientConnection, CommandClient, ForwardPair } from './client-stream.ts';
import { describeOutcome } from './command-status.ts';
import { refuseUpgrade, splitList } from './http-answers.ts';
import { joinSession } from './join-session.ts';
import type { Sessions } from './open-session.ts';
import type { SessionOutcome } from './session-link.ts';
import {
  SPDY_COMMAND_PROTOCOLS,
  type SpdyCommandProtocol,
  spdyCommandClient,
} from './spdy/command-client.ts';
import type { SpdyTransport } from './spdy/connection.ts';
import { SPDY_FORWARD_PROTOCOL, serveSpdyForwards } from './spdy/forward-client.ts';
import { probeSpdy, tcpTransport } from './spdy/tcp-transport.ts';
import type { StreamJournal } from './stream-journal.ts';
import { WEBSOCKET_COMMAND_PROTOCOLS, webSocketCommandClient } from './websocket/command-client.ts';
import {
  portsOfQuery,
  TUNNEL_PROTOCOL,
  tunnelTransport,
  WEBSOCKET_FORWARD_PROTOCOLS,
  webSocketForwards,
} from './websocket/forward-client.ts';

/** The largest WebSocket message that is put together in memory. */
const MESSAGE_BYTES_MAX = 16 * 1024 * 1024;
const SPDY = 'spdy/3.1';

export interface StreamService {
  readonly clock: Clock;
  readonly sessions: Sessions;
  readonly journal: StreamJournal;
  /** Aborts when the gateway ends: no session is asked for any more. */
  readonly stopping: AbortSignal;
  readonly idleMs: number;
  /** For a client to open its streams after the upgrade. */
  readonly creationMs: number;
}

export interface Upgrade {
  readonly request: IncomingMessage;
  readonly socket: Duplex;
  /** What came behind the request already. */
  readonly head: Buffer;
}

const webSocketOptions = {
  noServer: true,
  perMessageDeflate: false,
  maxPayload: MESSAGE_BYTES_MAX,
  // The longest of timers: the library counts from the goodbye on, also while bytes still wait before
  // it, where the client's socket knows better.
  closeTimeout: 2 ** 31 - 1,
};
const webSockets = new WebSocketServer(webSocketOptions);
/** Subprotocols that were chosen: the library would refuse the tunnel's, which has a slash in it. */
const chosenProtocols = new WeakMap<IncomingMessage, string>();
webSockets.on('headers', (headers, request) => {
  const protocol = chosenProtocols.get(request);
  if (protocol !== undefined) headers.push(`Sec-WebSocket-Protocol: ${protocol}`);
});

/** Serves the stream of one upgrade request; answers when it is over. Raises nothing. */
export async function serveStream(
  service: StreamService,
  ask: StreamAsk,
  upgrade: Upgrade,
): Promise<void> {
  const { request, socket } = upgrade;
  const wanted = (request.headers.upgrade ?? '').toLowerCase();
  if (!(socket instanceof Socket)) throw new Error('an upgraded connection is a socket');
  if (wanted === 'websocket') await serveWebSocket(service, ask, upgrade);
  else if (wanted.includes(SPDY)) await serveSpdyUpgrade(service, ask, { ...upgrade, socket });
  else
    refuseUpgrade(socket, 400, `unable to upgrade to "${wanted}", only to SPDY/3.1 or websocket`);
}

async function serveSpdyUpgrade(
  service: StreamService,
  ask: StreamAsk,
  { request, socket, head }: Upgrade & { readonly socket: Socket },
): Promise<void> {
  const offered = splitList(request.headers['x-stream-protocol-version']);
  const known =
    ask.kind === 'port-forward' ? [SPDY_FORWARD_PROTOCOL] : Object.keys(SPDY_COMMAND_PROTOCOLS);
  // A client that names none is as old as the first version.
  const protocol = offered.length === 0 ? known.at(-1) : offered.find((one) => known.includes(one));
  if (protocol === undefined) {
    refuseUpgrade(
      socket,
      403,
      `unable to negotiate protocol: client supports ${offered.join(', ')}, server accepts ${known.join(', ')}`,
      known.map((one) => `X-Accepted-Stream-Protocol-Versions: ${one}`),
    );
    return;
  }
  const { clock, idleMs, creationMs } = service;
  const probe = (): void => probeSpdy(socket);
  const client = createClientSocket({ socket, probe, clock, idleMs });
  const transport = tcpTransport(socket, client);
  socket.write(
    [
      'HTTP/1.1 101 Switching Protocols',
      'Connection: Upgrade',
      'Upgrade: SPDY/3.1',
      `X-Stream-Protocol-Version: ${protocol}`,
      '\r\n',
    ].join('\r\n'),
  );
  if (head.length > 0) socket.unshift(head);
  if (ask.kind === 'port-forward') {
    await serveSpdyForwarding(service, ask, { transport, protocol: `SPDY/3.1 ${protocol}` });
    return;
  }
  try {
    const version = protocol as SpdyCommandProtocol;
    const command = { transport, protocol: version, ask, clock, creationMs };
    await serveCommand(service, ask, await spdyCommandClient(command));
  } catch (error) {
    if (!isFailure(error)) throw error;
    const entry = service.journal.begin(ask, { protocol: `SPDY/3.1 ${protocol}` });
    entry.end({ kind: 'failure', failure: error });
  }
}

async function serveWebSocket(
  service: StreamService,
  ask: StreamAsk,
  { request, socket, head }: Upgrade,
): Promise<void> {
  const offered = splitList(request.headers['sec-websocket-protocol']);
  const known: readonly string[] = [
    ...(ask.kind === 'port-forward'
      ? WEBSOCKET_FORWARD_PROTOCOLS
      : WEBSOCKET_COMMAND_PROTOCOLS
    ).keys(),
  ];
  const protocol = offered.length === 0 ? '' : offered.find((one) => known.includes(one));
  if (protocol === undefined) {
    const accepted = known.filter((one) => one !== '').join(', ');
    const sentence = `requested protocols are not supported: ${offered.join(', ')}; supported: ${accepted}`;
    refuseUpgrade(socket, 403, sentence);
    return;
  }
  const ports = forwardedPorts(ask, request);
  if (ports === undefined && protocol !== TUNNEL_PROTOCOL) {
    refuseUpgrade(socket, 400, 'the query parameter "port" is required: 1 to 65535');
    return;
  }
  delete request.headers['sec-websocket-protocol'];
  if (protocol !== '') chosenProtocols.set(request, protocol);
  const ws = await upgraded({ request, socket, head });
  if (ws === undefined || !(socket instanceof Socket)) return;
  ws.on('error', () => socket.destroy());
  const reading = { pause: () => ws.pause(), resume: () => ws.resume() };
  const { clock, idleMs } = service;
  // An unasked-for pong is a heartbeat without an answer (RFC 6455, 5.5.3).
  const probe = (): void => ws.pong();
  const client = createClientSocket({ socket, reading, probe, clock, idleMs });
  if (ask.kind !== 'port-forward') {
    const command = webSocketCommandClient({ ws, client, ask, subprotocol: protocol });
    await serveCommand(service, ask, command);
  } else if (protocol === TUNNEL_PROTOCOL) {
    const transport = tunnelTransport(ws, client);
    await serveSpdyForwarding(service, ask, { transport, protocol });
  } else {
    await serveChannelForwarding(service, ask, { ws, client, protocol, ports: ports ?? [] });
  }
}

/** Those of the CRI request, else of the URL's query; none for a command. */
function forwardedPorts(ask: StreamAsk, request: IncomingMessage): readonly number[] | undefined {
  if (ask.kind !== 'port-forward') return [];
  return ask.ports.length > 0 ? ask.ports : portsOfQuery(request.url ?? '');
}

/** Undefined when the request was no proper one: it has been answered then. */
function upgraded({ request, socket, head }: Upgrade): Promise<WebSocket | undefined> {
  return new Promise((resolve) => {
    socket.once('close', () => resolve(undefined));
    webSockets.handleUpgrade(request, socket, head, resolve);
  });
}

async function serveCommand(
  service: StreamService,
  ask: CommandAsk,
  client: CommandClient,
): Promise<void> {
  const { connection, error, statusForm, stdin, stdout, stderr, resize } = client;
  const entry = service.journal.begin(ask, { protocol: client.protocol });
  const what = `${ask.kind} in container "${ask.containerId}"`;
  const outcome = await runSession(service, connection, async (signal) => {
    const session = await service.sessions.command(ask, signal);
    const { count } = entry;
    return joinSession({ session, what, connection, stdin, stdout, stderr, resize, count });
  });
  entry.end(outcome);
  stdout?.end();
  stderr?.end();
  const status = describeOutcome(outcome, { kind: ask.kind, statusForm });
  if (status.length > 0) error.write(status);
  error.end();
  connection.close();
}

async function serveSpdyForwarding(
  service: StreamService,
  ask: ForwardAsk,
  { transport, protocol }: { readonly transport: SpdyTransport; readonly protocol: string },
): Promise<void> {
  const { clock, creationMs } = service;
  const { closed } = serveSpdyForwards({
    transport,
    clock,
    creationMs,
    onPair: (pair, connection) => void serveForward(service, ask, { pair, connection, protocol }),
  });
  await aborted(closed);
}

async function serveChannelForwarding(
  service: StreamService,
  ask: ForwardAsk,
  options: {
    readonly ws: WebSocket;
    readonly client: ClientSocket;
    readonly ports: readonly number[];
    readonly protocol: string;
  },
): Promise<void> {
  const { ws, client, ports, protocol } = options;
  const codec = protocol === 'v4.base64.channel.k8s.io' ? 'base64' : 'binary';
  const { connection, pairs } = webSocketForwards({ ws, client, codec, ports });
  await Promise.all(
    pairs.map((pair) => serveForward(service, ask, { pair, connection, protocol })),
  );
  connection.close();
}

async function serveForward(
  service: StreamService,
  ask: ForwardAsk,
  options: {
    readonly pair: ForwardPair;
    readonly connection: ClientConnection;
    readonly protocol: string;
  },
): Promise<void> {
  const { pair, connection, protocol } = options;
  const { port, data, error } = pair;
  const entry = service.journal.begin(ask, { port, protocol });
  const what = `port ${port} of sandbox "${ask.sandboxId}"`;
  const outcome = await runSession(service, connection, async (signal) => {
    const session = await service.sessions.forward(ask, port, signal);
    return joinSession({
      session,
      what,
      connection,
      stdin: data,
      stdout: data,
      forward: { ...pair, clock: service.clock },
      count: entry.count,
    });
  });
  entry.end(outcome);
  if (outcome.kind === 'failure') {
    // Whoever gave up a connection hears nothing of it: kubectl would end all others for an error.
    if (outcome.failure.kind !== 'cancelled') {
      error.write(Buffer.from(`error forwarding ${what}: ${outcome.failure.message}`));
    }
    error.end();
    data.reset();
    return;
  }
  data.end();
  error.end();
}

/** Every failure is an outcome; a bug is told as one without its details, and is raised too. */
async function runSession(
  service: StreamService,
  connection: ClientConnection,
  run: (signal: AbortSignal) => Promise<SessionOutcome>,
): Promise<SessionOutcome> {
  try {
    return await withJoinedSignal([connection.closed, service.stopping], run);
  } catch (error) {
    if (isFailure(error)) return { kind: 'failure', failure: error };
    return { kind: 'failure', failure: new Failure('bug', 'internal error', { cause: error }) };
  }
}

function aborted(signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal.aborted) resolve();
    else signal.addEventListener('abort', () => resolve(), { once: true });
  });
}
