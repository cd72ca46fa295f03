// Container events, made from what the view applies: every step of every container and sandbox, once
// and in order, to any number of subscribers. Without one only the steps are remembered.

import type { Metrics } from '@cribus/chassis/metrics.ts';
import { Failure } from '@cribus/contracts/failure.ts';
import { ContainerEventResponse, ContainerEventType } from '@cribus/contracts/gen/cri/v1/api.ts';
import type { SandboxRecord } from '@cribus/contracts/gen/node/v1/records.ts';
import type { Clock } from '@cribus/host/clock.ts';
import type { NodeView, ViewChange } from '../view/node-view.ts';
import { podStatus } from '../view/pod-status.ts';
import { lastKnownSandboxes, type SandboxMemory } from './sandbox-memory.ts';
import { type Step, stepsOfContainer, stepsOfSandbox } from './steps.ts';

/**
 * Events that wait for one subscriber; one that is further behind is cut. All subscribers wait for the
 * same bytes, so that together they keep about what the slowest of them does.
 */
export const WAITING_EVENTS_MAX = 1_000;
export const WAITING_BYTES_MAX = 8 * 1024 * 1024;
/** The kubelet is one, tools are some more; beyond this somebody forgets to hang up. */
export const SUBSCRIBERS_MAX = 256;

export interface Subscription {
  /**
   * The next event, encoded, when there is one. Rejects with the signal's reason, and with `limit`
   * when the subscriber fell too far behind; nothing comes after that.
   */
  next(signal: AbortSignal): Promise<Buffer>;
  close(): void;
}

export interface EventHub {
  /**
   * From now on; nothing that was before. `onCut` is called as soon as the subscriber is too slow.
   * Raises limit when there are too many subscribers.
   */
  subscribe(onCut: (failure: Failure) => void): Subscription;
}

interface Subscriber {
  /** Of what is seen for the first time only steps since then are news. */
  readonly sinceNs: bigint;
  push(event: Buffer): void;
}

export interface EventHubOptions {
  readonly view: NodeView;
  readonly clock: Clock;
  readonly metrics: Metrics;
}

/** Follows the view; it must be the only one that does. */
export function createEventHub(options: EventHubOptions): EventHub {
  const { view, clock } = options;
  const subscribers = new Set<Subscriber>();
  const { sent, cut } = eventMetrics(options.metrics, subscribers);
  const told = createToldSteps();
  const memory = lastKnownSandboxes(view);

  const emit = (
    about: { readonly id: string; readonly sandbox: SandboxRecord },
    { type, atNs }: Step,
  ): void => {
    const listening = [...subscribers].filter((subscriber) => subscriber.sinceNs <= atNs);
    if (listening.length === 0) return;
    const event = encodeEvent(view, { ...about, type, createdAtNs: clock.nowNs() });
    for (const subscriber of listening) {
      sent.inc({ type: TYPE_NAMES[type] });
      subscriber.push(event);
    }
  };

  view.onChange((change) => {
    memory.note(change);
    const steps = told.news(change, subscribers.size > 0 ? clock.nowNs() : 0n);
    if (subscribers.size === 0 || steps.length === 0) return;
    const sandbox = sandboxOf(change, memory);
    for (const step of steps) emit({ id: change.id, sandbox }, step);
  });

  return {
    subscribe(onCut) {
      if (subscribers.size >= SUBSCRIBERS_MAX) {
        const message = `there are ${SUBSCRIBERS_MAX} subscribers of container events already`;
        throw new Failure('limit', message);
      }
      const queue = createWaiting((failure) => {
        cut.inc();
        subscribers.delete(subscriber);
        onCut(failure);
      });
      const subscriber: Subscriber = { sinceNs: clock.nowNs(), push: queue.push };
      subscribers.add(subscriber);
      return { next: queue.next, close: () => void subscribers.delete(subscriber) };
    },
  };
}

const TYPE_NAMES: Readonly<Record<ContainerEventType, string>> = {
  [ContainerEventType.CONTAINER_CREATED_EVENT]: 'created',
  [ContainerEventType.CONTAINER_STARTED_EVENT]: 'started',
  [ContainerEventType.CONTAINER_STOPPED_EVENT]: 'stopped',
  [ContainerEventType.CONTAINER_DELETED_EVENT]: 'deleted',
};

function eventMetrics(metrics: Metrics, subscribers: ReadonlySet<unknown>) {
  metrics.gauge('cribus_event_subscribers', 'Subscribers of container events.', [], (gauge) =>
    gauge.set(subscribers.size),
  );
  const sent = metrics.counter(
    'cribus_container_events_total',
    'Container events handed to subscribers, by type.',
    ['type'],
  );
  for (const type of Object.values(TYPE_NAMES)) sent.inc({ type }, 0);
  return {
    sent,
    cut: metrics.counter(
      'cribus_event_subscribers_cut_total',
      'Subscribers of container events that were cut for being too slow.',
      [],
    ),
  };
}

/** Which steps of each object are known, so that each is told once. */
function createToldSteps() {
  const known = new Map<string, Set<ContainerEventType>>();
  return {
    /** The steps that this change brings; `nowNs` is their time unless the object is new here. */
    news(change: ViewChange, nowNs: bigint): Step[] {
      const before = known.get(change.id);
      if (change.after === undefined) {
        known.delete(change.id);
        return before === undefined || before.size === 0 ? [] : lastSteps(before, nowNs);
      }
      const reached =
        change.kind === 'sandbox' ? stepsOfSandbox(change.after) : stepsOfContainer(change.after);
      if (before?.size === reached.length) return [];
      const news = reached.filter((step) => before?.has(step.type) !== true);
      const all = before ?? new Set();
      for (const { type } of reached) all.add(type);
      known.set(change.id, all);
      return before === undefined ? news : news.map(({ type }) => ({ type, atNs: nowNs }));
    },
  };
}

function lastSteps(told: ReadonlySet<ContainerEventType>, atNs: bigint): Step[] {
  const { CONTAINER_STARTED_EVENT, CONTAINER_STOPPED_EVENT, CONTAINER_DELETED_EVENT } =
    ContainerEventType;
  const ran = told.has(CONTAINER_STARTED_EVENT) && !told.has(CONTAINER_STOPPED_EVENT);
  return [
    ...(ran ? [{ type: CONTAINER_STOPPED_EVENT, atNs }] : []),
    { type: CONTAINER_DELETED_EVENT, atNs },
  ];
}

function sandboxOf(change: ViewChange, memory: SandboxMemory): SandboxRecord {
  if (change.kind === 'sandbox') return change.after ?? change.before;
  return memory.sandboxOf(change.after ?? change.before);
}

function encodeEvent(
  view: NodeView,
  event: {
    readonly id: string;
    readonly sandbox: SandboxRecord;
    readonly type: ContainerEventType;
    readonly createdAtNs: bigint;
  },
): Buffer {
  const message = ContainerEventResponse.fromPartial({
    containerId: event.id,
    containerEventType: event.type,
    createdAt: event.createdAtNs,
    ...podStatus(view, event.sandbox),
  });
  return Buffer.from(ContainerEventResponse.encode(message).finish());
}

/** What waits for one subscriber. */
function createWaiting(onTooMuch: (failure: Failure) => void) {
  const waiting: Buffer[] = [];
  let bytes = 0;
  let failure: Failure | undefined;
  let wake = (): void => undefined;
  return {
    push(event: Buffer): void {
      waiting.push(event);
      bytes += event.length;
      if (waiting.length > WAITING_EVENTS_MAX || bytes > WAITING_BYTES_MAX) {
        const message = `${waiting.length} container events (${bytes} bytes) wait for this subscriber`;
        failure = new Failure('limit', `${message}: it is too slow; subscribe again and list`);
        waiting.length = 0;
        onTooMuch(failure);
      }
      wake();
    },
    async next(signal: AbortSignal): Promise<Buffer> {
      for (;;) {
        if (failure !== undefined) throw failure;
        const event = waiting.shift();
        if (event !== undefined) {
          bytes -= event.length;
          return event;
        }
        signal.throwIfAborted();
        await new Promise<void>((resolve) => {
          const done = (): void => {
            signal.removeEventListener('abort', done);
            resolve();
          };
          wake = done;
          signal.addEventListener('abort', done, { once: true });
        });
      }
    },
  };
}
