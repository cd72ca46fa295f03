import assert from 'node:assert/strict';
import { createMetrics } from '@cribus/chassis/metrics.ts';
import type { Failure } from '@cribus/contracts/failure.ts';
import {
  ContainerEventResponse,
  ContainerEventType,
  PodSandboxState,
} from '@cribus/contracts/gen/cri/v1/api.ts';
import {
  ContainerPhase,
  ContainerRecord,
  ObjectReport,
  SandboxPhase,
  SandboxRecord,
} from '@cribus/contracts/gen/node/v1/records.ts';
import { runtimeOwner, SANDBOX_MANAGER } from '@cribus/contracts/subjects.ts';
import { systemClock } from '@cribus/host/clock.ts';
import { beforeEach, describe, it } from 'mocha';
import { createNodeView, type NodeView } from '../view/node-view.ts';
import { createEventHub, type EventHub, SUBSCRIBERS_MAX, WAITING_EVENTS_MAX } from './event-hub.ts';

const RUNC = runtimeOwner('runc');
const NAMES: Record<number, string> = {
  [ContainerEventType.CONTAINER_CREATED_EVENT]: 'created',
  [ContainerEventType.CONTAINER_STARTED_EVENT]: 'started',
  [ContainerEventType.CONTAINER_STOPPED_EVENT]: 'stopped',
  [ContainerEventType.CONTAINER_DELETED_EVENT]: 'deleted',
};
const ended = AbortSignal.abort(new Error('no event waits'));

describe('the hub of container events', () => {
  let view: NodeView;
  let hub: EventHub;
  let revision: bigint;

  beforeEach(() => {
    revision = 0n;
    view = createNodeView(systemClock);
    hub = createEventHub({ view, clock: systemClock, metrics: createMetrics('cri-gateway') });
  });

  function apply(owner: string, object: NonNullable<ObjectReport['object']>): boolean {
    revision += 1n;
    const version = { epoch: 1n, revision };
    return view.apply(ObjectReport.fromPartial({ owner, id: object.value.id, version, object }));
  }

  function sandbox(phase: SandboxPhase, more: object = {}): void {
    const value = SandboxRecord.fromPartial({
      id: 'pod',
      handler: 'runc',
      config: { metadata: { name: 'p', uid: 'u' } },
      createdAtNs: systemClock.nowNs(),
      phase,
      ...more,
    });
    apply(SANDBOX_MANAGER, { $case: 'sandbox', value });
  }

  function container(phase: ContainerPhase, more: object = {}): void {
    const value = ContainerRecord.fromPartial({
      id: 'box',
      sandboxId: 'pod',
      handler: 'runc',
      createdAtNs: systemClock.nowNs(),
      phase,
      ...more,
    });
    apply(RUNC, { $case: 'container', value });
  }

  function remove(owner: string, id: string): void {
    revision += 1n;
    view.apply(
      ObjectReport.fromPartial({ owner, id, version: { epoch: 1n, revision }, deleted: true }),
    );
  }

  function subscribe(): {
    all(): Promise<ContainerEventResponse[]>;
    cut: Failure[];
    close(): void;
  } {
    const cut: Failure[] = [];
    const subscription = hub.subscribe((failure) => cut.push(failure));
    return {
      cut,
      close: subscription.close,
      async all() {
        const events: ContainerEventResponse[] = [];
        for (;;) {
          const bytes = await subscription.next(ended).catch((error: unknown) => {
            if (error === ended.reason) return undefined;
            throw error;
          });
          if (bytes === undefined) return events;
          events.push(ContainerEventResponse.decode(bytes));
        }
      },
    };
  }

  const told = (events: readonly ContainerEventResponse[]): string[] =>
    events.map((event) => `${event.containerId} ${NAMES[event.containerEventType]}`);

  const startedAtNs = 1n;

  it('tells every step of a sandbox and of its container once, under one rising clock', async () => {
    const first = subscribe();
    const second = subscribe();
    sandbox(SandboxPhase.CREATING);
    sandbox(SandboxPhase.READY);
    container(ContainerPhase.CREATING);
    container(ContainerPhase.CREATED);
    container(ContainerPhase.RUNNING, { startedAtNs });
    container(ContainerPhase.RUNNING, { startedAtNs, message: 'another change' });
    container(ContainerPhase.EXITED, { startedAtNs, exitCode: 3, finishedAtNs: 2n });
    sandbox(SandboxPhase.STOPPING);
    sandbox(SandboxPhase.NOTREADY, { operation: { finishedAtNs: 1n } });
    container(ContainerPhase.REMOVING, { startedAtNs, finishedAtNs: 2n });
    remove(RUNC, 'box');
    sandbox(SandboxPhase.REMOVING, { operation: { finishedAtNs: 1n } });
    remove(SANDBOX_MANAGER, 'pod');
    const events = await first.all();
    assert.deepEqual(told(events), [
      'pod created',
      'pod started',
      'box created',
      'box started',
      'box stopped',
      'pod stopped',
      'box deleted',
      'pod deleted',
    ]);
    events.reduce((last, { createdAt }) => {
      assert.ok(createdAt > last, 'the clock of events rises');
      return createdAt;
    }, 0n);
    assert.deepEqual(await second.all(), events);
  });

  it('carries the status of the sandbox and of all its containers with every event', async () => {
    const { all } = subscribe();
    sandbox(SandboxPhase.READY);
    container(ContainerPhase.RUNNING, { startedAtNs: systemClock.nowNs() });
    // The sandbox's owner may be heard before the worker.
    remove(SANDBOX_MANAGER, 'pod');
    remove(RUNC, 'box');
    const events = await all();
    assert.deepEqual(told(events), [
      'pod created',
      'pod started',
      'box created',
      'box started',
      'pod stopped',
      'pod deleted',
      'box stopped',
      'box deleted',
    ]);
    for (const event of events) assert.equal(event.podSandboxStatus?.metadata?.uid, 'u');
    assert.equal(events[3]?.containersStatuses[0]?.id, 'box');
    assert.equal(events[3]?.podSandboxStatus?.state, PodSandboxState.SANDBOX_READY);
    assert.equal(events[7]?.podSandboxStatus?.state, PodSandboxState.SANDBOX_NOTREADY);
    assert.deepEqual(events[7]?.containersStatuses, []);
  });

  it('makes the pod of a container up from its labels when nothing knows the sandbox', async () => {
    const { all } = subscribe();
    const labels = { 'io.kubernetes.pod.uid': 'u7' };
    container(ContainerPhase.CREATED, { podName: 'p', config: { labels } });
    const [event] = await all();
    assert.deepEqual(
      [event?.podSandboxStatus?.id, event?.podSandboxStatus?.metadata?.uid],
      ['pod', 'u7'],
    );
  });

  it('tells all steps in order when only the last report of them came', async () => {
    const { all } = subscribe();
    sandbox(SandboxPhase.NOTREADY, { operation: { finishedAtNs: 1n } });
    container(ContainerPhase.EXITED, { startedAtNs, finishedAtNs: 2n });
    assert.deepEqual(told(await all()), [
      'pod created',
      'pod started',
      'pod stopped',
      'box created',
      'box started',
      'box stopped',
    ]);
  });

  it('tells what an inventory shows to be gone', async () => {
    sandbox(SandboxPhase.READY);
    container(ContainerPhase.RUNNING, { startedAtNs });
    const { all } = subscribe();
    view.dropMissing(RUNC, new Set(), view.order());
    assert.deepEqual(told(await all()), ['box stopped', 'box deleted']);
  });

  it('replays nothing of what was before the subscription, however late it is learnt', async () => {
    sandbox(SandboxPhase.READY);
    const createdAtNs = systemClock.nowNs();
    const { all } = subscribe();
    container(ContainerPhase.RUNNING, { createdAtNs, startedAtNs: createdAtNs });
    container(ContainerPhase.UNKNOWN, { createdAtNs, startedAtNs: createdAtNs });
    container(ContainerPhase.RUNNING, { createdAtNs, startedAtNs: createdAtNs });
    assert.deepEqual(await all(), []);
    container(ContainerPhase.EXITED, { createdAtNs, startedAtNs: createdAtNs, finishedAtNs: 9n });
    assert.deepEqual(told(await all()), ['box stopped']);
  });

  it('tells nothing of the processes of sandboxes, nor of containers that never came to be', async () => {
    sandbox(SandboxPhase.READY);
    const { all } = subscribe();
    container(ContainerPhase.RUNNING, { startedAtNs, sandboxProcess: true });
    remove(RUNC, 'box');
    container(ContainerPhase.CREATING, { id: 'other' });
    remove(RUNC, 'other');
    assert.deepEqual(await all(), []);
  });

  it('gives a status read after an event a later time than the event has', async () => {
    const { all } = subscribe();
    sandbox(SandboxPhase.READY);
    container(ContainerPhase.CREATED);
    const last = (await all()).at(-1);
    assert.ok(view.sandboxTouchedAtNs('pod') > (last?.createdAt ?? 0n));
  });

  it('cuts a subscriber that is too slow, with the others unharmed and nothing kept', async () => {
    const slow = subscribe();
    const quick = subscribe();
    let seen = 0;
    for (let turn = 0; turn <= WAITING_EVENTS_MAX; turn += 1) {
      container(ContainerPhase.CREATED, { id: `box ${turn}`, sandboxId: `pod ${turn}` });
      seen += (await quick.all()).length;
    }
    assert.equal(seen, WAITING_EVENTS_MAX + 1);
    assert.deepEqual(
      [slow.cut, quick.cut].map((failures) => failures.map(({ kind }) => kind)),
      [['limit'], []],
    );
    await assert.rejects(() => slow.all(), /1001 container events .* wait for this subscriber/);
  });

  it('keeps what waits once, however many subscribers wait for it', async () => {
    const subscriptions = Array.from({ length: 3 }, () => hub.subscribe(() => undefined));
    container(ContainerPhase.CREATED);
    const [first, ...others] = await Promise.all(subscriptions.map(({ next }) => next(ended)));
    for (const event of others) assert.equal(event, first, 'the same memory');
  });

  it('cuts by bytes as by number, and takes no more subscribers than it can serve', async () => {
    const slow = subscribe();
    const message = 'x'.repeat(1024 * 1024);
    for (let turn = 0; turn < 9; turn += 1)
      container(ContainerPhase.CREATED, { id: String(turn), message });
    assert.equal(slow.cut.length, 1);
    const others = Array.from({ length: SUBSCRIBERS_MAX }, subscribe);
    assert.throws(subscribe, /there are 256 subscribers/);
    others[0]?.close();
    subscribe();
  });
});
