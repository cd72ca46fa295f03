// Asking an owner, and hearing its events. One connection per service; core NATS only.

import { randomUUID } from 'node:crypto';
import { Failure, failureFromHeaders } from '@cribus/contracts/failure.ts';
import { ObjectReport, OwnerStatus } from '@cribus/contracts/gen/node/v1/records.ts';
import { Reply } from '@cribus/contracts/gen/node/v1/verbs.ts';
import {
  type EventKind,
  eventSubject,
  type OwnerName,
  REQUEST_HEADERS,
  type RequestOf,
  type ResponseOf,
  VERBS,
  type VerbName,
  verbSubject,
} from '@cribus/contracts/subjects.ts';
import { type Clock, systemClock } from '@cribus/host/clock.ts';
import {
  connect,
  headers as createHeaders,
  createInbox,
  type Msg,
  type MsgHdrs,
  type NatsConnection,
} from '@nats-io/transport-node';
import { type Asker, createAsker } from './bus/ask.ts';
import { createGapDetector } from './bus/gaps.ts';
import { connectionOptions } from './bus/options.ts';
import { requestCodec, responseCodec } from './codecs.ts';
import type { Logger } from './log.ts';
import { injectTrace } from './tracing.ts';

export interface AskOptions {
  readonly owner: OwnerName;
  /** Bounds the wait and nothing else: aborting it detaches, the operation goes on at its owner. */
  readonly signal: AbortSignal;
  readonly requestId: string;
  /** Until when the asker waits, on the clock's monotonic milliseconds; told to the owner. */
  readonly deadlineAtMs?: number;
  /** For mutating verbs: kept over every re-ask; default: a new one. */
  readonly operationId?: string;
}

export interface Answer<T> {
  readonly result: T;
  /** Every object that the verb changed, to be applied before one's own caller is answered. */
  readonly changed: readonly ObjectReport[];
}

/** One message as `serve` hands it out. */
export interface BusMessage {
  readonly subject: string;
  /** Where the asker waits; empty when it doesn't. */
  readonly reply: string;
  readonly data: Uint8Array;
  /** A header, or an empty text. */
  header(name: string): string;
  /**
   * Answers at `reply`. Nothing is sent while disconnected: the asker asks again. Raises limit when
   * the answer is larger than maxPayloadBytes.
   */
  respond(data: Uint8Array, headers?: Readonly<Record<string, string>>): void;
}

export interface Bus {
  readonly node: string;
  /**
   * Asks the owner of a verb. A mutating one is asked again with the same operation id every 2 s,
   * after each reconnect, and on "no responders" within the start-up grace of 5 s. Raises the
   * owner's own Failure; unavailable ("<owner> does not answer: …") when nobody responds; the
   * signal's reason when it aborts.
   */
  ask<V extends VerbName>(
    verb: V,
    request: RequestOf<V>,
    options: AskOptions,
  ): Promise<Answer<ResponseOf<V>>>;
  /** Tells without waiting (acknowledge-operation). */
  tell<V extends VerbName>(verb: V, request: RequestOf<V>, owner: OwnerName): void;
  publish(kind: Exclude<EventKind, 'owner'>, report: ObjectReport): void;
  publish(kind: 'owner', status: OwnerStatus): void;
  /**
   * Calls back for each event of the node until the signal aborts, and `onReconnect` after every
   * reconnect, when events may have been missed.
   */
  subscribe(options: {
    readonly onReport?: (report: ObjectReport) => void;
    readonly onOwner?: (status: OwnerStatus) => void;
    readonly onReconnect?: () => void;
    /** A report of this owner was missed: take an inventory. Said at most once per gap. */
    readonly onGap?: (owner: OwnerName) => void;
    readonly signal: AbortSignal;
  }): void;
  /** Calls `onMessage` for each message on a subject; how the chassis serves verbs and `$SRV`. */
  serve(subject: string, onMessage: (message: BusMessage) => void): { close(): void };
  /** The largest message, headers included, that the server takes. */
  maxPayloadBytes(): number;
  connected(): boolean;
  close(): Promise<void>;
}

export interface ConnectOptions {
  readonly url: string;
  readonly node: string;
  /** The service's name; also names its nkey seed and its private inbox prefix. */
  readonly service: string;
  readonly credentialsDirectory: string;
  readonly log: Logger;
  readonly clock?: Clock;
}

/** The bus as its maker holds it. */
export interface ConnectedBus extends Bus {
  /** Resolves when the connection has ended for good: undefined after `close`, else why. */
  readonly ended: Promise<Error | undefined>;
}

/** While the server can't be reached at first, it is tried this often; later the client does it. */
const CONNECT_INTERVAL_MS = 250;
/** What NATS takes when it does not say otherwise (nats-server, max_payload). */
const MAX_PAYLOAD_BYTES_DEFAULT = 1024 * 1024;

/** Connects; keeps trying until the signal aborts. Reconnects for ever afterwards. */
export async function connectBus(
  options: ConnectOptions & { readonly signal: AbortSignal },
): Promise<ConnectedBus> {
  const clock = options.clock ?? systemClock;
  let said = '';
  for (;;) {
    options.signal.throwIfAborted();
    try {
      const connection = await connect(await connectionOptions(options));
      if (options.signal.aborted) await connection.close();
      options.signal.throwIfAborted();
      return createBus(connection, { ...options, clock });
    } catch (error) {
      options.signal.throwIfAborted();
      const why = error instanceof Error ? error.message : String(error);
      // A server that is down is said once, not four times a second.
      if (why !== said) options.log.warn({ reason: why }, 'NATS cannot be reached; still trying');
      said = why;
      await clock.sleep(CONNECT_INTERVAL_MS, options.signal);
    }
  }
}

interface Connected {
  readonly connection: NatsConnection;
  readonly asker: Asker;
  readonly clock: Clock;
  readonly up: () => boolean;
  readonly onReconnect: Set<() => void>;
}

function createBus(
  connection: NatsConnection,
  options: ConnectOptions & { readonly clock: Clock },
): ConnectedBus {
  const { node, log } = options;
  let up = true;
  const inbox = createInbox(`_INBOX_${options.service}`);
  const asker = createAsker({ inbox, clock: options.clock, connected: () => up });
  const onReconnect = new Set<() => void>([asker.onReconnect]);
  const { clock } = options;
  const wire: Connected = { connection, asker, clock, up: () => up, onReconnect };
  connection.subscribe(`${inbox}.*`, { callback: (_error, message) => asker.onMessage(message) });
  const watched = watchConnection(wire, log, (isUp) => {
    up = isUp;
  });
  const maxPayloadBytes = () => connection.info?.max_payload ?? MAX_PAYLOAD_BYTES_DEFAULT;

  const bus: ConnectedBus = {
    node,
    ended: Promise.all([connection.closed(), watched]).then(([error]) => error ?? undefined),
    ask: (verb, request, ask) => askOwner({ wire, bus, verb, request, ask }),
    tell(verb, request, owner) {
      if (!up) return;
      const codec = requestCodec(verb);
      connection.publish(verbSubject(node, owner, verb), codec.encode(request).finish());
    },
    publish(kind: EventKind, event: ObjectReport | OwnerStatus) {
      // The client would queue without a bound; a subscriber sees the gap in the sequence instead.
      if (!up) return;
      const data =
        'instanceId' in event
          ? OwnerStatus.encode(event).finish()
          : ObjectReport.encode(event).finish();
      const headers = createHeaders();
      injectTrace((name, value) => headers.set(name, value));
      const bytes = sizeOf(data, headers);
      if (bytes > maxPayloadBytes()) {
        log.error({ kind, bytes }, 'an event is too large for the bus and is not sent');
        return;
      }
      // Nothing is injected where nothing is traced, and then an event needs no headers.
      const traced = headers.keys().length > 0;
      connection.publish(eventSubject(node, kind), data, traced ? { headers } : {});
    },
    subscribe: (listener) => subscribeEvents({ wire, node, log }, listener),
    serve: (subject, onMessage) => serveSubject({ wire, log, maxPayloadBytes }, subject, onMessage),
    maxPayloadBytes,
    connected: () => up,
    async close() {
      asker.close();
      if (!connection.isClosed()) await (up ? connection.drain() : connection.close());
    },
  };
  return bus;
}

async function watchConnection(
  wire: Connected,
  log: Logger,
  setUp: (isUp: boolean) => void,
): Promise<void> {
  for await (const status of wire.connection.status()) {
    if (status.type === 'disconnect') {
      setUp(false);
      log.warn({ server: status.server }, 'the connection to NATS is lost; reconnecting');
    } else if (status.type === 'reconnect') {
      setUp(true);
      log.info({ server: status.server }, 'connected to NATS again');
      for (const tell of [...wire.onReconnect]) tell();
    } else if (status.type === 'error') {
      // A refused subject shows here and nowhere else.
      log.warn({ reason: status.error.message }, 'NATS refused something');
    }
  }
  setUp(false);
}

async function askOwner<V extends VerbName>(options: {
  readonly wire: Connected;
  readonly bus: Bus;
  readonly verb: V;
  readonly request: RequestOf<V>;
  readonly ask: AskOptions;
}): Promise<Answer<ResponseOf<V>>> {
  const { wire, bus, verb, request, ask } = options;
  const row = VERBS[verb];
  const data = requestCodec(verb).encode(request).finish();
  const subject = verbSubject(bus.node, ask.owner, verb);
  const operationId = ask.operationId ?? randomUUID();
  const message = await wire.asker.ask({
    owner: ask.owner,
    verb,
    signal: ask.signal,
    send(reply, attempt) {
      const headers = createHeaders();
      headers.set(REQUEST_HEADERS.requestId, ask.requestId);
      headers.set(REQUEST_HEADERS.operationId, operationId);
      headers.set(REQUEST_HEADERS.attempt, String(attempt));
      if (ask.deadlineAtMs !== undefined && Number.isFinite(ask.deadlineAtMs)) {
        const leftMs = Math.max(0, Math.ceil(ask.deadlineAtMs - wire.clock.monotonicMs()));
        headers.set(REQUEST_HEADERS.deadlineMs, String(leftMs));
      }
      injectTrace((name, value) => headers.set(name, value));
      refuseTooLarge({ what: `the request ${verb}`, data, headers, max: bus.maxPayloadBytes() });
      wire.connection.publish(subject, data, { reply, headers });
    },
  });
  if (row.mutates && !ask.signal.aborted) {
    bus.tell('acknowledge-operation', { operationId, objectId: '' }, ask.owner);
  }
  const failure = failureFromHeaders((name) => message.headers?.get(name) ?? '');
  if (failure !== undefined) throw failure;
  const reply = Reply.decode(message.data);
  return { result: responseCodec(verb).decode(reply.result), changed: reply.changed };
}

function refuseTooLarge(options: {
  readonly what: string;
  readonly data: Uint8Array;
  readonly headers: MsgHdrs;
  readonly max: number;
}): void {
  const { what, data, headers, max } = options;
  const bytes = sizeOf(data, headers);
  if (bytes <= max) return;
  throw new Failure('limit', `${what} of ${bytes} bytes is over the bus's maximum of ${max}`);
}

/** What NATS counts of a message with headers. */
function sizeOf(data: Uint8Array, headers: MsgHdrs): number {
  // "NATS/1.0" and the ends of lines come to 12 bytes, each header line to 4 with its separators.
  let bytes = data.length + 12;
  for (const [name, values] of headers) {
    for (const value of values) bytes += Buffer.byteLength(name) + Buffer.byteLength(value) + 4;
  }
  return bytes;
}

function subscribeEvents(
  context: { readonly wire: Connected; readonly node: string; readonly log: Logger },
  listener: Parameters<Bus['subscribe']>[0],
): void {
  if (listener.signal.aborted) return;
  const { wire, node, log } = context;
  const gaps = createGapDetector();
  const ownerSubject = eventSubject(node, 'owner');
  const onEvent = (message: Msg) => {
    if (message.subject === ownerSubject) {
      const status = OwnerStatus.decode(message.data);
      if (gaps.status(status)) listener.onGap?.(status.owner as OwnerName);
      listener.onOwner?.(status);
      return;
    }
    const report = ObjectReport.decode(message.data);
    const epoch = report.version?.epoch ?? 0n;
    const missed = gaps.report({ owner: report.owner, epoch, sequence: report.sequence });
    if (missed) listener.onGap?.(report.owner as OwnerName);
    listener.onReport?.(report);
  };
  const subscription = wire.connection.subscribe(eventSubject(node, '*'), {
    callback(error, message) {
      if (error !== null) return;
      try {
        onEvent(message);
      } catch (failure) {
        log.error({ error: failure, subject: message.subject }, 'an event could not be applied');
      }
    },
  });
  const { onReconnect } = listener;
  if (onReconnect !== undefined) wire.onReconnect.add(onReconnect);
  listener.signal.addEventListener(
    'abort',
    () => {
      subscription.unsubscribe();
      if (onReconnect !== undefined) wire.onReconnect.delete(onReconnect);
    },
    { once: true },
  );
}

function serveSubject(
  context: {
    readonly wire: Connected;
    readonly log: Logger;
    readonly maxPayloadBytes: () => number;
  },
  subject: string,
  onMessage: (message: BusMessage) => void,
): { close(): void } {
  const { wire, log } = context;
  const toBusMessage = (message: Msg): BusMessage => ({
    subject: message.subject,
    reply: message.reply ?? '',
    data: message.data,
    header: (name) => message.headers?.get(name) ?? '',
    respond(data, fields = {}) {
      if (message.reply === undefined || message.reply === '' || !wire.up()) return;
      const headers = createHeaders();
      for (const [name, value] of Object.entries(fields)) headers.set(name, value);
      const max = context.maxPayloadBytes();
      refuseTooLarge({ what: `the answer on ${subject}`, data, headers, max });
      wire.connection.publish(message.reply, data, { headers });
    },
  });
  const subscription = wire.connection.subscribe(subject, {
    callback(error, message) {
      if (error !== null) {
        log.error({ subject, error }, 'NATS refused a subscription');
        return;
      }
      onMessage(toBusMessage(message));
    },
  });
  return { close: () => subscription.unsubscribe() };
}
