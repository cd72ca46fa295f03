// What every verb of an owner gets around it: its operation joined or answered again, a budget, a
// log line, a metric, a span, and its failure as headers of the reply.

import { createHash, randomUUID } from 'node:crypto';
import { Failure, failureToHeaders, isFailure } from '@cribus/contracts/failure.ts';
import type { ObjectReport } from '@cribus/contracts/gen/node/v1/records.ts';
import { Reply } from '@cribus/contracts/gen/node/v1/verbs.ts';
import {
  budgetOf,
  type OwnerName,
  REQUEST_HEADERS,
  VERBS,
  type VerbName,
} from '@cribus/contracts/subjects.ts';
import { joinSignals } from '@cribus/host/joined-signals.ts';
import type { BusMessage } from './bus.ts';
import { requestCodec, responseCodec } from './codecs.ts';
import type { EndpointStats } from './discovery.ts';
import { namesOf } from './names.ts';
import type { FinishedReply, Operations } from './operations.ts';
import type { VerbContext } from './owner.ts';
import { type AnyRecord, addChanged, type RecordStore } from './records.ts';
import type { Service } from './service.ts';
import { activeTraceId, setSpanAttribute, withSpan } from './tracing.ts';

/** A handler with its verb's types taken off: the server decodes and encodes by the verb. */
export type ServedVerb = (request: never, context: VerbContext) => Promise<unknown>;

export interface VerbServer {
  /** What to call for each message on the verb's subject. */
  serve(verb: VerbName, handler: ServedVerb, stats: EndpointStats): (message: BusMessage) => void;
}

/** Room that a reply leaves for its headers. */
const HEADER_BYTES = 1_024;

interface Setting {
  readonly service: Service;
  readonly owner: OwnerName;
  readonly stores: readonly RecordStore<AnyRecord>[];
  readonly operations: Operations;
  /** The end of the owner. */
  readonly signal: AbortSignal;
}

interface Call {
  readonly verb: VerbName;
  readonly handler: ServedVerb;
  readonly stats: EndpointStats;
  readonly message: BusMessage;
  readonly requestId: string;
  readonly operationId: string;
  readonly attempt: number;
  /** How long the asker said that it waits; it bounds nothing here, and is logged. */
  readonly deadlineMs: number | undefined;
  readonly requestHash: string;
}

/** Makes the server of one owner's verbs. */
export function createVerbServer(setting: Setting): VerbServer {
  const instruments = createInstruments(setting.service);
  // One answer for each place that waits, however often it asked: the server allows no second one.
  const answering = new Set<string>();

  async function answer(call: Call): Promise<void> {
    const place = `${call.operationId} ${call.message.reply}`;
    if (answering.has(place)) return;
    answering.add(place);
    const { operationId, verb, requestHash } = call;
    try {
      const ask = { operationId, verb, requestHash, remember: VERBS[verb].mutates };
      const reply = await setting.operations.run(ask, () => runVerb(setting, instruments, call));
      respond(setting, call, reply);
    } catch (error) {
      respond(setting, call, failureReply(toFailure(setting, instruments, call, error)));
    } finally {
      answering.delete(place);
    }
  }

  return {
    serve: (verb, handler, stats) => (message) => {
      const call: Call = {
        verb,
        handler,
        stats,
        message,
        requestId: message.header(REQUEST_HEADERS.requestId) || randomUUID(),
        operationId: message.header(REQUEST_HEADERS.operationId) || randomUUID(),
        attempt: Number.parseInt(message.header(REQUEST_HEADERS.attempt), 10) || 1,
        deadlineMs: readMs(message.header(REQUEST_HEADERS.deadlineMs)),
        requestHash: createHash('sha256').update(message.data).digest('hex'),
      };
      answer(call).catch((error: unknown) => {
        setting.service.log.error({ verb, error }, 'an answer could not be sent');
      });
    },
  };
}

function readMs(header: string): number | undefined {
  return /^\d+$/.test(header) ? Number(header) : undefined;
}

function respond(setting: Setting, call: Call, reply: FinishedReply): void {
  try {
    call.message.respond(reply.data, reply.headers);
  } catch (error) {
    if (!isFailure(error)) throw error;
    setting.service.log.error({ verb: call.verb, error }, 'a reply is too large for the bus');
    const small = failureReply(error);
    call.message.respond(small.data, small.headers);
  }
}

function createInstruments(service: Service) {
  const labels = ['verb', 'owner'];
  return {
    requests: service.metrics.counter(
      'cribus_verb_requests_total',
      'Verbs that an owner finished, by the kind of their failure, or ok.',
      [...labels, 'kind'],
    ),
    seconds: service.metrics.histogram(
      'cribus_verb_seconds',
      'How long the owner took for a verb.',
      labels,
    ),
    inFlight: service.metrics.gauge('cribus_verb_in_flight', 'Verbs that run now.', labels),
    bugs: service.metrics.counter(
      'cribus_bugs_total',
      'Errors that were no Failure: each is a bug, logged with its incident id.',
      [],
    ),
  };
}
type Instruments = ReturnType<typeof createInstruments>;

/** Runs the handler and tells of it; never rejects. */
async function runVerb(
  setting: Setting,
  instruments: Instruments,
  call: Call,
): Promise<FinishedReply> {
  const { service, owner } = setting;
  const { verb, stats, message } = call;
  const labels = { verb, owner };
  const startedMs = service.clock.monotonicMs();
  instruments.inFlight.inc(labels);
  let reply: FinishedReply;
  let kind = 'ok';
  try {
    reply = await withSpan(
      `${owner} ${verb}`,
      {
        kind: 'server',
        attributes: { 'cribus.owner': owner, 'cribus.request_id': call.requestId },
        carrier: message.header,
      },
      () => handle(setting, instruments, call),
    );
    const failed = reply.headers['Cribus-Failure-Kind'];
    if (failed !== undefined) kind = failed;
  } catch (error) {
    const failure = toFailure(setting, instruments, call, error);
    kind = failure.kind;
    reply = failureReply(failure);
  }
  const durationMs = service.clock.monotonicMs() - startedMs;
  instruments.inFlight.dec(labels);
  instruments.requests.inc({ ...labels, kind });
  instruments.seconds.observe(labels, durationMs / 1_000);
  stats.requests += 1;
  stats.processingTimeNs += durationMs * 1e6;
  if (kind !== 'ok') {
    stats.errors += 1;
    stats.lastError = kind;
  }
  return reply;
}

async function handle(
  setting: Setting,
  instruments: Instruments,
  call: Call,
): Promise<FinishedReply> {
  const { service, owner } = setting;
  const { verb } = call;
  const startedMs = service.clock.monotonicMs();
  const request = requestCodec(verb).decode(call.message.data);
  const changed: ObjectReport[] = [];
  const traceId = activeTraceId();
  const log = service.log.child({
    request_id: call.requestId,
    verb,
    owner,
    ...(traceId === undefined ? {} : { trace_id: traceId }),
  });
  const limitMs = budgetOf(verb, request);
  const limit = limitMs === 0 ? [] : [service.clock.timeout(limitMs)];
  const { signal, release } = joinSignals([setting.signal, ...limit]);
  const context = createContext(setting, call, {
    signal,
    ...(limitMs === 0 ? {} : { deadlineAtMs: startedMs + limitMs }),
    log,
    changed,
  });
  const finish = (failure?: Failure) => {
    const fields = {
      ...namesOf({ request, changed, stores: setting.stores }),
      duration_ms: Math.round(service.clock.monotonicMs() - startedMs),
      kind: failure?.kind ?? 'ok',
      ...(call.attempt > 1 ? { attempt: call.attempt } : {}),
      ...(call.deadlineMs === undefined ? {} : { asker_waits_ms: call.deadlineMs }),
      ...(failure === undefined ? {} : { reason: failure.message }),
    };
    if (VERBS[verb].mutates) log.info(fields, failure === undefined ? 'done' : 'failed');
    else log.debug(fields, failure === undefined ? 'answered' : 'failed');
  };
  try {
    const result = await call.handler(request as never, context);
    const data = responseCodec(verb)
      .encode(result as never)
      .finish();
    const reply = Reply.encode({ result: Buffer.from(data), changed }).finish();
    const max = service.bus.maxPayloadBytes() - HEADER_BYTES;
    if (reply.length > max) {
      throw new Failure('limit', `the answer has ${reply.length} bytes, the bus takes ${max}`);
    }
    finish();
    return { headers: {}, data: reply };
  } catch (error) {
    const failure = toFailure(setting, instruments, call, error, signal);
    finish(failure);
    setSpanAttribute('cribus.failure', failure.kind);
    return failureReply(failure);
  } finally {
    release();
  }
}

function createContext(
  setting: Setting,
  call: Call,
  own: Pick<VerbContext, 'signal' | 'log' | 'changed'> & { readonly deadlineAtMs?: number },
): VerbContext {
  const { requestId, operationId, attempt, requestHash } = call;
  const { deadlineAtMs, ...given } = own;
  return {
    ...given,
    requestId,
    operationId,
    attempt,
    requestHash,
    async ask(verb, request, options) {
      const answer = await setting.service.bus.ask(verb, request, {
        owner: options.owner,
        signal: options.signal ?? own.signal,
        requestId,
        ...(deadlineAtMs === undefined ? {} : { deadlineAtMs }),
        ...(options.operationId === undefined ? {} : { operationId: options.operationId }),
      });
      for (const report of answer.changed) addChanged(own.changed, report);
      return answer.result;
    },
  };
}

function toFailure(
  setting: Setting,
  instruments: Instruments,
  call: Call,
  error: unknown,
  signal?: AbortSignal,
): Failure {
  if (isFailure(error)) return error;
  const { verb } = call;
  if (error instanceof Error && error.name === 'TimeoutError') {
    const own = signal?.aborted === true && signal.reason === error;
    const what = own ? `took longer than its ${VERBS[verb].budgetMs / 1_000} s` : 'timed out';
    return new Failure('timeout', `${setting.owner} ${verb} ${what}`, { cause: error });
  }
  const incident = randomUUID();
  instruments.bugs.inc();
  setting.service.log.error(
    { incident, error, verb, owner: setting.owner, request_id: call.requestId },
    'bug: an error that is no failure',
  );
  return new Failure('bug', `internal error, incident ${incident}`, { cause: error });
}

function failureReply(failure: Failure): FinishedReply {
  return { headers: failureToHeaders(failure), data: new Uint8Array() };
}
