import assert from 'node:assert/strict';
import { Failure } from '@cribus/contracts/failure.ts';
import {
  ContainerRecord,
  ImageRecord,
  ObjectReport,
  OwnerStatus,
  SandboxPhase,
  SandboxRecord,
} from '@cribus/contracts/gen/node/v1/records.ts';
import { InventoryResponse } from '@cribus/contracts/gen/node/v1/verbs.ts';
import {
  IMAGE_SERVICE,
  type OwnerName,
  runtimeOwner,
  SANDBOX_MANAGER,
} from '@cribus/contracts/subjects.ts';
import type { Clock } from '@cribus/host/clock.ts';
import { afterEach, describe, it } from 'mocha';
import { createFeed, type FeedSources, noteProgress } from './feed.ts';
import { createNodeView } from './node-view.ts';
import { createOwners } from './owners.ts';

const RUNC = runtimeOwner('runc');

/** Time passes only by `advance`, which also lets everything that became due run. */
function manualClock(): Clock & { advance(ms: number): Promise<void> } {
  let now = 1_000;
  let ns = 0n;
  const timers = new Set<{ atMs: number; ring: () => void }>();
  const at = (ms: number, ring: () => void) => {
    const timer = { atMs: now + ms, ring };
    timers.add(timer);
    return timer;
  };
  return {
    nowNs: () => ++ns,
    monotonicMs: () => now,
    sleep: (ms, signal) =>
      new Promise((resolve, reject) => {
        if (signal?.aborted) reject(signal.reason);
        const timer = at(ms, resolve);
        signal?.addEventListener('abort', () => {
          timers.delete(timer);
          reject(signal.reason);
        });
      }),
    timeout: (ms) => {
      const controller = new AbortController();
      at(ms, () => controller.abort(new DOMException('time is up', 'TimeoutError')));
      return controller.signal;
    },
    async advance(ms) {
      for (let passed = 0; passed < ms; passed += 100) {
        now += 100;
        for (const timer of [...timers].filter((item) => item.atMs <= now)) {
          timers.delete(timer);
          timer.ring();
        }
        for (let turn = 0; turn < 20; turn += 1) await Promise.resolve();
      }
    },
  };
}

function report(
  owner: OwnerName,
  id: string,
  version: [bigint, bigint],
  options: { sequence?: bigint; deleted?: boolean } = {},
): ObjectReport {
  const head = { epoch: version[0], revision: version[1] };
  const kinds = {
    [IMAGE_SERVICE]: { $case: 'image', value: ImageRecord.fromPartial({ id }) },
    [SANDBOX_MANAGER]: {
      $case: 'sandbox',
      value: SandboxRecord.fromPartial({ id, handler: 'runc', phase: SandboxPhase.READY }),
    },
    [RUNC]: {
      $case: 'container',
      value: ContainerRecord.fromPartial({ id, handler: 'runc', sandboxId: 's', phase: 2 }),
    },
  } as unknown as Record<string, NonNullable<ObjectReport['object']>>;
  const object = kinds[owner];
  return ObjectReport.fromPartial({
    owner,
    id,
    version: head,
    sequence: options.sequence ?? 0n,
    deleted: options.deleted === true,
    ...(options.deleted === true || object === undefined ? {} : { object }),
  });
}

const away = (): Promise<never> => Promise.reject(new Failure('unavailable', 'nobody answers'));

function page(owner: OwnerName, objects: ObjectReport[], epoch = 1n, sequence = 0n) {
  const status = OwnerStatus.fromPartial({ owner, epoch, sequence });
  return InventoryResponse.fromPartial({ status, objects });
}

describe('the feed of the view', () => {
  let ending = new AbortController();
  afterEach(() => {
    ending.abort();
    ending = new AbortController();
  });

  function start(sources: Partial<FeedSources>) {
    const clock = manualClock();
    const view = createNodeView(clock);
    const configuredHandlers = ['runc'];
    const owners = createOwners({ clock, busConnected: () => true, configuredHandlers });
    const log = { debug: () => undefined, info: () => undefined, warn: () => undefined };
    const feed = createFeed({
      view,
      owners,
      clock,
      log,
      signal: ending.signal,
      configuredHandlers,
      background: (_name, work) => void work,
      sources: {
        mirror: async () => undefined,
        inventory: away,
        disk: async () => [],
        ...sources,
      },
    });
    const ids = () => view.containers().map((item) => item.record.id);
    return { clock, view, owners, feed, ids };
  }

  it('is primed only when each owner was heard, and names the others', async () => {
    const here = new Set<OwnerName>([IMAGE_SERVICE, RUNC]);
    const { clock, feed } = start({
      inventory: (owner) => (here.has(owner) ? Promise.resolve(page(owner, [])) : away()),
      disk: away,
    });
    await clock.advance(1_000);
    assert.deepEqual(feed.missing(), [SANDBOX_MANAGER]);
    assert.throws(() => feed.requirePrimed(), /waiting for sandbox-manager$/);
    here.add(SANDBOX_MANAGER);
    await clock.advance(1_000);
    assert.deepEqual(feed.missing(), []);
    feed.requirePrimed();
  });

  it('waits for the worker of a handler that only a sandbox names', async () => {
    const { clock, feed } = start({
      inventory: async (owner) => {
        const object = report(SANDBOX_MANAGER, 's', [1n, 1n]);
        if (object.object?.$case === 'sandbox') object.object.value.handler = 'kata';
        if (owner === runtimeOwner('kata')) return away();
        return page(owner, owner === SANDBOX_MANAGER ? [object] : []);
      },
      disk: away,
    });
    await clock.advance(500);
    assert.deepEqual(feed.missing(), ['runtime.kata']);
  });

  it('takes a complete snapshot of Redis, never a partial one', async () => {
    const { clock, feed, ids } = start({
      mirror: async (owner) => ({
        complete: owner !== IMAGE_SERVICE,
        objects: owner === RUNC ? [report(RUNC, 'c', [1n, 1n])] : [],
      }),
      disk: away,
    });
    await clock.advance(500);
    assert.deepEqual(feed.missing(), [IMAGE_SERVICE]);
    assert.deepEqual(ids(), ['c']);
    assert.equal(feed.origins().get(RUNC), 'redis');
  });

  it('reads the records on disk only after three seconds of silence', async () => {
    const { clock, feed, ids } = start({
      disk: async (owner) => (owner === RUNC ? [report(RUNC, 'c', [1n, 1n])] : []),
    });
    await clock.advance(2_900);
    assert.equal(feed.missing().length, 3);
    await clock.advance(200);
    assert.deepEqual(feed.missing(), []);
    assert.deepEqual(ids(), ['c']);
    assert.equal(feed.origins().get(RUNC), 'disk');
  });

  it('drops what a complete inventory lacks, but not what came meanwhile', async () => {
    let finish: (answer: InventoryResponse) => void = () => undefined;
    const { clock, feed, ids } = start({
      mirror: async (owner) => ({
        complete: true,
        objects:
          owner === RUNC ? [report(RUNC, 'gone', [1n, 1n]), report(RUNC, 'kept', [1n, 2n])] : [],
      }),
      inventory: (owner) =>
        owner === RUNC
          ? new Promise((resolve) => {
              finish = resolve;
            })
          : Promise.resolve(page(owner, [])),
    });
    await clock.advance(100);
    assert.deepEqual(ids(), ['gone', 'kept']);
    feed.onReconnect();
    await clock.advance(100);
    finish(page(RUNC, [report(RUNC, 'kept', [1n, 2n]), report(RUNC, 'gone', [1n, 1n])]));
    await clock.advance(100);
    feed.onReport(report(RUNC, 'new', [1n, 3n], { sequence: 1n }));
    finish(page(RUNC, [report(RUNC, 'kept', [1n, 2n])]));
    await clock.advance(100);
    assert.deepEqual(ids(), ['kept', 'new']);
    // A late, older report of what is gone changes nothing.
    feed.onReport(report(RUNC, 'gone', [1n, 1n]));
    assert.deepEqual(ids(), ['kept', 'new']);
  });

  it('asks again after a gap, a new epoch, a heartbeat ahead and a reconnect', async () => {
    let taken = 0;
    let epoch = 1n;
    let sequence = 5n;
    const { clock, feed } = start({
      inventory: async (owner) => {
        if (owner === RUNC) taken += 1;
        return page(owner, [], epoch, sequence);
      },
    });
    await clock.advance(200);
    assert.equal(taken, 1);
    const heartbeat = (more: object = {}) =>
      feed.onOwner(OwnerStatus.fromPartial({ owner: RUNC, epoch, sequence, ...more }));
    heartbeat();
    feed.onReport(report(RUNC, 'a', [1n, 1n], { sequence: 6n }));
    await clock.advance(200);
    assert.equal(taken, 1, 'nothing was missed');
    sequence = 9n;
    feed.onReport(report(RUNC, 'b', [1n, 4n], { sequence: 9n }));
    await clock.advance(200);
    assert.equal(taken, 2, 'a gap');
    sequence = 10n;
    heartbeat();
    await clock.advance(200);
    assert.equal(taken, 3, 'a heartbeat ahead');
    epoch = 2n;
    sequence = 0n;
    heartbeat();
    await clock.advance(200);
    assert.equal(taken, 4, 'a new epoch');
    feed.onReconnect();
    await clock.advance(200);
    assert.equal(taken, 5, 'a reconnect');
  });

  it('reads every page before it drops anything', async () => {
    const pages: Record<string, [string, string]> = {
      '': ['a', 'p1'],
      p1: ['b', 'p2'],
      p2: ['c', ''],
    };
    const { clock, ids } = start({
      inventory: async (owner, token) => {
        const [id, nextPageToken] = pages[token] ?? ['', ''];
        if (owner !== RUNC) return page(owner, []);
        return { ...page(RUNC, [report(RUNC, id, [1n, 1n])]), nextPageToken };
      },
    });
    await clock.advance(300);
    assert.deepEqual(ids(), ['a', 'b', 'c']);
  });

  it('says for how long a worker has been silent, and counts anew after a reconnect', async () => {
    const { clock, feed, owners } = start({ inventory: async (owner) => page(owner, []) });
    feed.onOwner(OwnerStatus.fromPartial({ owner: RUNC, epoch: 1n, handler: { name: 'runc' } }));
    await clock.advance(4_900);
    owners.requireAlive(RUNC);
    await clock.advance(7_100);
    assert.throws(
      () => owners.requireAlive(RUNC),
      /^Failure: handler "runc" is unavailable: its worker has not been heard from for 12 s$/,
    );
    feed.onReconnect();
    owners.requireAlive(RUNC);
    feed.onOwner(OwnerStatus.fromPartial({ owner: RUNC, epoch: 1n, stopping: true }));
    assert.throws(() => owners.requireAlive(RUNC), /its worker is stopping/);
  });
});

describe('progress within an epoch', () => {
  it('misses nothing but gaps', () => {
    const state = { epoch: 1n, sequence: 3n as bigint | undefined };
    const news = (epoch: bigint, sequence: bigint, isReport: boolean) =>
      noteProgress(state, { epoch, sequence, isReport });
    assert.equal(news(1n, 4n, true), false);
    assert.equal(news(1n, 4n, false), false);
    assert.equal(news(1n, 6n, true), true);
    assert.equal(news(1n, 6n, true), false);
    assert.equal(news(0n, 90n, true), false);
    assert.equal(news(1n, 7n, false), true);
    assert.equal(news(2n, 1n, true), true);
    assert.equal(news(2n, 9n, true), false, 'an inventory is on its way');
  });
});
