// The one wrapper around every verb: request id, log line, span, metrics, the caller's deadline as a
// signal, and every failure as a gRPC status.

import { randomUUID } from 'node:crypto';
import { failureOfAbort } from '@cribus/chassis/abort.ts';
import type { Bus } from '@cribus/chassis/bus.ts';
import type { Logger } from '@cribus/chassis/log.ts';
import type { Metrics } from '@cribus/chassis/metrics.ts';
import { withSpan } from '@cribus/chassis/tracing.ts';
import { Failure, GRPC_CODE, isFailure } from '@cribus/contracts/failure.ts';
import { budgetOf } from '@cribus/contracts/subjects.ts';
import type { Clock } from '@cribus/host/clock.ts';
import { type JoinedSignal, joinSignals, withJoinedSignal } from '@cribus/host/joined-signals.ts';
import { Metadata, type ServerUnaryCall, type sendUnaryData } from '@grpc/grpc-js';
import type { Call, Gateway, Verb } from './gateway.ts';

/** What an owner may take over its budget before the gateway stops waiting for it. */
const WAIT_SLACK_MS = 15_000;
/** A call that is cancelled so shortly before its deadline is cancelled for it: clocks are rounded. */
const DEADLINE_SLACK_MS = 5;
/** gRPC trailers share 16 KiB with their keys (grpc-js, http2 default), percent-encoded. */
const MESSAGE_LENGTH_MAX = 4_000;

export interface Wrapping {
  readonly gateway: Gateway;
  readonly bus: Bus;
  readonly log: Logger;
  readonly metrics: Metrics;
  /** Ends every wait; its reason is a Failure. */
  readonly stopping: AbortSignal;
  /** Aborted before, as soon as the service is told to end: ends what would never end itself. */
  readonly leaving: AbortSignal;
}

const CODE_NAMES: ReadonlyMap<number, string> = new Map(
  Object.entries(GRPC_CODE).map(([name, code]) => [code, name]),
);

export interface GrpcStatus {
  readonly code: number;
  readonly details: string;
}

/** The status for whatever a verb threw. An unknown throw is a bug, told by an incident id only. */
export function statusOf(error: unknown, requestId: string): GrpcStatus & { incident?: string } {
  const suffix = ` (request ${requestId})`;
  if (isFailure(error) && error.kind !== 'bug') {
    // At the end: the kubelet looks for its reasons at the very start.
    const message = error.message.slice(0, MESSAGE_LENGTH_MAX);
    return { code: error.grpcCode, details: `${message}${suffix}` };
  }
  const incident = randomUUID();
  return {
    code: GRPC_CODE.INTERNAL,
    details: `internal error, incident ${incident}${suffix}`,
    incident,
  };
}

/** A unary handler for grpc-js around one verb. */
export function wrapVerb<Request extends object, Response>(
  name: string,
  options: Wrapping & { readonly mutates: boolean; readonly verb: Verb<Request, Response> },
): (call: ServerUnaryCall<Request, Response>, respond: sendUnaryData<Response>) => void {
  const begin = callsOf(name, options);
  return (call, respond) => {
    const { context, inSpan, end } = begin(call, options.stopping);
    inSpan(() => options.verb(call.request, context)).then(
      (response) => {
        end();
        respond(null, response);
      },
      (error: unknown) => {
        respond({ ...end(error), metadata: new Metadata() });
      },
    );
  };
}

/** What the wrappers need of a call of grpc-js, of either kind. */
interface Incoming {
  readonly request: object;
  readonly metadata: Metadata;
  getDeadline(): Date | number;
  on(event: 'cancelled', listener: () => void): unknown;
}

export interface BegunCall {
  readonly context: Call;
  inSpan<T>(work: () => Promise<T>): Promise<T>;
  /** Counts and logs the end of the call; without an error it is OK. */
  end(error?: unknown): GrpcStatus;
}

/** Begins calls of one verb; `stopping` ends their waits. */
export function callsOf(
  name: string,
  options: Wrapping & { readonly mutates: boolean },
): (call: Incoming, stopping: AbortSignal) => BegunCall {
  const { requests, seconds, inFlight, bugs } = criMetrics(options.metrics);
  return (call, stopping) => {
    const requestId = randomUUID();
    const started = options.gateway.clock.monotonicMs();
    const log = options.log.child({ request_id: requestId, verb: name });
    const caller = callerOf(call, { clock: options.gateway.clock, stopping });
    inFlight.inc({ verb: name });
    const finish = (code: number, error: unknown): void => {
      caller.answered();
      const elapsedMs = options.gateway.clock.monotonicMs() - started;
      inFlight.dec({ verb: name });
      requests.inc({ verb: name, code: CODE_NAMES.get(code) ?? String(code) });
      seconds.observe({ verb: name }, elapsedMs / 1000);
      const fields = {
        ...namesOf(call.request, options.gateway),
        code: CODE_NAMES.get(code),
        ms: Math.round(elapsedMs * 10) / 10,
        ...(error === undefined ? {} : { error }),
      };
      const level = code === GRPC_CODE.INTERNAL ? 'error' : options.mutates ? 'info' : 'debug';
      log[level](fields, code === GRPC_CODE.OK ? 'answered' : 'refused');
    };
    const carrier = (header: string): string => String(call.metadata.get(header)[0] ?? '');
    const deadlineAtMs = started + leftMs(call, options.gateway.clock);
    return {
      context: createCall(options, { requestId, caller, log, deadlineAtMs }),
      inSpan: (work) =>
        withSpan(
          `cri ${name}`,
          { kind: 'server', carrier, attributes: { request_id: requestId } },
          work,
        ),
      end(error) {
        if (error === undefined) {
          finish(GRPC_CODE.OK, undefined);
          return { code: GRPC_CODE.OK, details: '' };
        }
        const { incident, ...status } = statusOf(error, requestId);
        if (incident !== undefined) {
          bugs.inc({ verb: name });
          log.error({ incident, error }, 'a bug');
        }
        finish(status.code, error);
        return status;
      },
    };
  };
}

/** The metrics of CRI calls, by verb. */
export function criMetrics(metrics: Metrics) {
  return {
    requests: metrics.counter(
      'cribus_cri_requests_total',
      'CRI calls answered, by verb and gRPC code.',
      ['verb', 'code'],
    ),
    seconds: metrics.histogram('cribus_cri_seconds', 'Duration of a CRI call.', ['verb']),
    inFlight: metrics.gauge('cribus_cri_in_flight', 'CRI calls being worked on.', ['verb']),
    bugs: metrics.counter(
      'cribus_bugs_total',
      'Errors that were no Failure: each is a bug, logged with its incident id.',
      ['verb'],
    ),
  };
}

interface Caller {
  /** Aborts when the caller's deadline passes, when it goes away, or when the service ends. */
  readonly signal: AbortSignal;
  /** The call has been answered; grpc-js says even then that it is cancelled. */
  answered(): void;
}

/** The signal is made when somebody waits: a read never does. */
function callerOf(
  call: Incoming,
  { clock, stopping }: { readonly clock: Clock; readonly stopping: AbortSignal },
): Caller {
  const gone = new AbortController();
  let answered = false;
  let joined: JoinedSignal | undefined;
  call.on('cancelled', () => {
    if (answered) return;
    // grpc-js tells a passed deadline and a caller that hung up in the same way.
    const passed = leftMs(call, clock) <= DEADLINE_SLACK_MS;
    gone.abort(
      passed
        ? new Failure('timeout', "the caller's deadline passed; the operation goes on")
        : new Failure('cancelled', 'the caller went away; the operation goes on'),
    );
  });
  return {
    get signal() {
      // Nobody waits behind an answer, and nobody would release it.
      if (answered) return joined?.signal ?? gone.signal;
      joined ??= joinSignals([gone.signal, stopping]);
      return joined.signal;
    },
    answered: () => {
      answered = true;
      joined?.release();
    },
  };
}

/** Until the caller's deadline, in milliseconds; infinite where it has none. */
function leftMs(call: Incoming, clock: Clock): number {
  const deadline = call.getDeadline();
  const untilMs = deadline instanceof Date ? deadline.getTime() : deadline;
  return untilMs - Number(clock.nowNs() / 1_000_000n);
}

function createCall(
  options: Wrapping,
  from: {
    readonly requestId: string;
    readonly caller: Caller;
    readonly log: Logger;
    /** The caller's, in monotonic milliseconds. */
    readonly deadlineAtMs: number;
  },
): Call {
  const { gateway, bus } = options;
  const { deadlineAtMs: callerUntilMs, requestId, caller, log } = from;
  return {
    requestId,
    log,
    get signal() {
      return caller.signal;
    },
    async ask(verb, request, { owner }) {
      gateway.owners.requireAlive(owner);
      const budgetMs = budgetOf(verb, request);
      const signals = [caller.signal];
      let deadlineAtMs = callerUntilMs;
      // A pull is bounded by its progress at the owner, and by its caller here.
      if (budgetMs > 0) {
        const waitMs = budgetMs + WAIT_SLACK_MS;
        signals.push(gateway.clock.timeout(waitMs));
        deadlineAtMs = Math.min(deadlineAtMs, gateway.clock.monotonicMs() + waitMs);
      }
      const { result, changed } = await withJoinedSignal(signals, (signal) =>
        bus
          .ask(verb, request, { owner, signal, requestId, deadlineAtMs })
          .catch((error: unknown) => {
            // The budget's own end isn't a Failure yet.
            throw signal.aborted && !isFailure(error)
              ? failureOfAbort(signal, `${owner}: ${verb}`)
              : error;
          }),
      );
      for (const report of changed) gateway.view.apply(report);
      return result;
    },
  };
}

/** Ids and names in a request, for the log; nothing else of it, as it may carry credentials. */
function namesOf(request: object, gateway: Gateway): Record<string, string> {
  const fields: Record<string, string> = {};
  const text = (key: string): string => {
    const value: unknown = Reflect.get(request, key);
    return typeof value === 'string' ? value : '';
  };
  const containerId = text('containerId');
  const container = gateway.view.container(containerId);
  if (containerId !== '') fields['container_id'] = containerId;
  const sandboxId = text('podSandboxId') || (container?.sandboxId ?? '');
  if (sandboxId !== '') fields['sandbox_id'] = sandboxId;
  const config = 'config' in request ? nameIn(request.config) : undefined;
  const name = container?.config?.metadata?.name ?? (sandboxId === '' ? undefined : config);
  if (name !== undefined) fields['container'] = name;
  const pod = gateway.view.sandbox(sandboxId)?.config?.metadata?.name;
  const podName = pod ?? (sandboxId === '' ? config : undefined);
  if (podName !== undefined) fields['pod'] = podName;
  const image: unknown = Reflect.get(request, 'image');
  if (typeof image === 'object' && image !== null && 'image' in image) {
    fields['image'] = String(image.image);
  }
  return fields;
}

function nameIn(config: unknown): string | undefined {
  if (typeof config !== 'object' || config === null || !('metadata' in config)) return undefined;
  const { metadata } = config;
  if (typeof metadata !== 'object' || metadata === null || !('name' in metadata)) return undefined;
  return typeof metadata.name === 'string' ? metadata.name : undefined;
}
