import assert from 'node:assert/strict';
import { systemClock } from '@cribus/host/clock.ts';
import { afterEach, beforeEach, describe, it } from 'mocha';
import { createBackground, type Readings } from './background-readings.ts';
import { parseStats } from './engine.ts';
import { estimate, shareOf } from './engine-readings.ts';
import { createLoadAverages } from './load-averages.ts';

describe('readings in the background', () => {
  let stop = new AbortController();
  let loops: Promise<unknown>[] = [];
  const never = new AbortController().signal;
  const service = () => ({
    clock: systemClock,
    stopping: stop.signal,
    background: (_name: string, work: Promise<unknown>) => void loops.push(work),
    log: { debug: () => undefined } as never,
  });
  const readingsOf = (
    ids: () => readonly string[],
    more: Partial<Readings> = {},
  ): Readings & { readonly read: Readings['read']; readonly times: Map<string, number> } => {
    const times = new Map<string, number>();
    return {
      name: 'test',
      everyMs: 20,
      share: 1,
      firstWaitMs: 2_000,
      due: ids,
      has: (id) => times.has(id),
      prune: () => undefined,
      read: async (id) => void times.set(id, (times.get(id) ?? 0) + 1),
      times,
      ...more,
    };
  };
  beforeEach(() => {
    stop = new AbortController();
    loops = [];
  });
  afterEach(async () => {
    stop.abort();
    await Promise.all(loops);
  });

  it('wait for what was never read, and go on without being asked again', async () => {
    const readings = readingsOf(() => ['a', 'b']);
    const background = createBackground(service(), [readings]);
    await background.asked(never);
    assert.deepEqual([...readings.times.keys()], ['a', 'b']);
    const until = systemClock.monotonicMs() + 5_000;
    while ((readings.times.get('b') ?? 0) < 3 && systemClock.monotonicMs() < until) {
      await systemClock.sleep(10);
    }
    assert.ok((readings.times.get('b') ?? 0) >= 3);
    assert.equal(loops.length, 1, 'one loop');
  });

  it('read soon what comes in between, and wait no longer than they may for what hangs', async () => {
    const ids = ['a'];
    const hanging = new Promise<void>(() => undefined);
    const readings = readingsOf(() => ids, { firstWaitMs: 100 });
    const background = createBackground(service(), [
      { ...readings, read: (id, signal) => (id === 'slow' ? hanging : readings.read(id, signal)) },
    ]);
    await background.asked(never);
    ids.push('b');
    await background.asked(never);
    assert.ok(readings.times.has('b'));
    ids.push('slow');
    const startedMs = systemClock.monotonicMs();
    await background.asked(never);
    assert.ok(systemClock.monotonicMs() - startedMs >= 90);
    loops = [];
  });

  it('go on after one that fails', async () => {
    const readings = readingsOf(() => ['bad', 'good']);
    const background = createBackground(service(), [
      {
        ...readings,
        read: async (id, signal) => {
          if (id === 'bad') throw new Error('no');
          await readings.read(id, signal);
        },
      },
    ]);
    await background.asked(never);
    assert.ok(readings.times.has('good'));
  });
});

describe('statistics of an engine', () => {
  it('are read from the event that runsc prints, with every digit', () => {
    const text =
      '{"type":"stats","id":"c1","data":{"cpu":{"usage":{"total":9085849363109123457}},"memory":{"usage":{"limit":0,"usage":28086272,"failcnt":0},"swap":{"limit":0,"failcnt":0}},"pids":{"current":5}}}\n';
    assert.deepEqual(parseStats(text), {
      cpuNs: 9085849363109123457n,
      memoryBytes: 28086272n,
      processes: 5n,
    });
    const newer =
      '{"type":"stats","id":"c1","data":{"cpu":{"usage":{"kernel":1,"user":2,"total":3,"percpu":[1,2]}},"memory":{"cache":7,"usage":{"limit":0,"usage":4,"failcnt":0}},"pids":{}}}';
    assert.deepEqual(parseStats(newer), { cpuNs: 3n, memoryBytes: 4n, processes: 0n });
    const idle =
      '{"type":"stats","id":"c1","data":{"cpu":{"usage":{}},"memory":{"usage":{"limit":0,"usage":4788224,"failcnt":0}},"pids":{"current":3}}}';
    const nothingYet = { cpuNs: 0n, memoryBytes: 4788224n, processes: 3n };
    assert.deepEqual(parseStats(idle), nothingYet, 'less than a tick of processor time');
    assert.equal(parseStats('loading sandbox: file does not exist'), undefined);
  });
});

describe('use of a container inside a Sentry', () => {
  const stats = (cpuNs: bigint) => ({ cpuNs, memoryBytes: 1n, processes: 1n });
  it('goes on between two readings with the share of the Sentry that it had', () => {
    const share = shareOf(undefined, { stats: stats(50n), sentryNs: 200n });
    const first = { stats: stats(50n), atNs: 1n, sentryNs: 200n, shareMillionths: share };
    assert.deepEqual(estimate(first, 400n), { cpuNs: 100n, isLive: true });
    const later = shareOf(first, { stats: stats(150n), sentryNs: 400n });
    assert.equal(later, 500_000n, 'of the time since then');
    assert.equal(shareOf(first, { stats: stats(500n), sentryNs: 400n }), 1_000_000n);
    assert.equal(shareOf(first, { stats: stats(40n), sentryNs: 400n }), 0n);
  });

  it('is the last reading where the Sentry has no cgroup of its own', () => {
    const share = shareOf(undefined, { stats: stats(50n), sentryNs: undefined });
    const only = { stats: stats(50n), atNs: 1n, sentryNs: undefined, shareMillionths: share };
    assert.deepEqual(estimate(only, undefined), { cpuNs: 50n, isLive: false });
    assert.deepEqual(estimate({ ...only, sentryNs: 9n }, 3n), { cpuNs: 50n, isLive: false });
  });
});

describe('load averages', () => {
  it('follow what runs within ten seconds', () => {
    let nowMs = 0;
    const loads = createLoadAverages({ monotonicMs: () => nowMs });
    const add = (running: bigint) => loads.add('a', { running, uninterruptible: 0n });
    assert.deepEqual(add(2n), { loadAverageMilli: 2000n, loadDAverageMilli: 0n });
    nowMs += 10_000;
    assert.equal(add(0n).loadAverageMilli, 736n, 'two thirds of it are forgotten');
    loads.keep(() => false);
    assert.equal(add(1n).loadAverageMilli, 1000n);
  });
});
