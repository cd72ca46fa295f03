import assert from 'node:assert/strict';
import { Failure } from '@cribus/contracts/failure.ts';
import {
  ContainerPhase,
  type ContainerRecord,
  ContainerUsage,
  OwnerStatus,
  SandboxUsage,
} from '@cribus/contracts/gen/node/v1/records.ts';
import { type OwnerName, runtimeOwner, SANDBOX_MANAGER } from '@cribus/contracts/subjects.ts';
import type { Clock } from '@cribus/host/clock.ts';
import { afterEach, beforeEach, describe, it } from 'mocha';
import { CONTAINER, containerReport, ID, sandboxReport } from '../testing/start-gateway.ts';
import { createNodeView } from '../view/node-view.ts';
import { createOwners } from '../view/owners.ts';
import { createStatistics, type Statistics } from './statistics.ts';

/** Time that passes only when told to. */
function createTestClock() {
  let nowMs = 1_000_000;
  const sleepers: { readonly untilMs: number; readonly wake: () => void }[] = [];
  const clock: Clock = {
    nowNs: () => BigInt(nowMs) * 1_000_000n,
    monotonicMs: () => nowMs,
    sleep: (ms, signal) =>
      new Promise((resolve, reject) => {
        signal?.addEventListener('abort', () => reject(signal.reason), { once: true });
        sleepers.push({ untilMs: nowMs + ms, wake: resolve });
      }),
    timeout: () => new AbortController().signal,
  };
  const settle = () => new Promise<void>((resolve) => setImmediate(resolve));
  const pass = async (ms: number): Promise<void> => {
    for (const end = nowMs + ms; nowMs < end; ) {
      nowMs += 100;
      for (const sleeper of sleepers.filter(({ untilMs }) => untilMs <= nowMs)) {
        sleepers.splice(sleepers.indexOf(sleeper), 1);
        sleeper.wake();
      }
      await settle();
    }
  };
  return { clock, pass };
}

describe('statistics', () => {
  const runc = runtimeOwner('runc');
  const never = new AbortController().signal;
  let time = createTestClock();
  let view = createNodeView(time.clock);
  let owners = createOwners({
    clock: time.clock,
    busConnected: () => true,
    configuredHandlers: ['runc'],
  });
  let asked: { owner: OwnerName; details: boolean }[] = [];
  let stop = new AbortController();
  let statistics: Statistics;
  /** What the worker does when it is asked. */
  let worker: () => Promise<void> = async () => undefined;
  /** Of a container that is only created nobody has figures. */
  let hasFigures = true;

  const alive = (...names: readonly OwnerName[]) => {
    for (const owner of names) owners.heard(OwnerStatus.fromPartial({ owner, epoch: 1n }));
  };
  const record = () => view.container(CONTAINER) as ContainerRecord;
  const countOf = (owner: OwnerName) => asked.filter((one) => one.owner === owner).length;
  const ask = (details = false) => statistics.recent({ details, signal: never });
  /** With heartbeats, as a living node has them. */
  const pass = async (ms: number) => {
    for (let left = ms; left > 0; left -= 1_000) {
      alive(SANDBOX_MANAGER, runc);
      await time.pass(Math.min(left, 1_000));
    }
  };

  beforeEach(() => {
    time = createTestClock();
    view = createNodeView(time.clock);
    owners = createOwners({
      clock: time.clock,
      busConnected: () => true,
      configuredHandlers: ['runc'],
    });
    asked = [];
    stop = new AbortController();
    worker = async () => undefined;
    hasFigures = true;
    view.apply(sandboxReport());
    view.apply(containerReport(ContainerPhase.RUNNING, 1n));
    statistics = createStatistics({
      view,
      owners,
      clock: time.clock,
      stopping: stop.signal,
      background: (_name, work) => void work,
      ask: async (verb, { details }, { owner }) => {
        asked.push({ owner, details });
        const cgroup = { sampledAtNs: time.clock.nowNs(), cpuNs: time.clock.nowNs() / 4n };
        const usage = { cgroup: { ...cgroup, ...(details ? { details: {} } : {}) } };
        if (verb === 'sample-containers') await worker();
        return {
          containers: [
            ContainerUsage.fromPartial({ containerId: CONTAINER, ...(hasFigures ? usage : {}) }),
          ],
          sandboxes: [SandboxUsage.fromPartial({ podSandboxId: ID, ...usage })],
          nextPageToken: '',
        } as never;
      },
      log: { debug: () => undefined },
    });
    alive(SANDBOX_MANAGER, runc);
  });
  afterEach(() => stop.abort(new Error('the test ends')));

  it('asks nobody while nobody asks, and a minute after the last ask nobody again', async () => {
    await pass(5_000);
    assert.deepEqual(asked, []);
    await ask();
    assert.deepEqual([countOf(SANDBOX_MANAGER), countOf(runc)], [1, 1]);
    assert.ok(statistics.container(record()) !== undefined);
    await pass(10_000);
    assert.ok(countOf(runc) >= 11 && countOf(runc) <= 14, `${countOf(runc)} in ten seconds`);
    await pass(55_000);
    const before = asked.length;
    await pass(60_000);
    assert.equal(asked.length, before);
    assert.equal(statistics.container(record()), undefined, 'samples are forgotten');
  });

  it('answers from the last sample, and takes one at once for what started since', async () => {
    await ask();
    await pass(1_500);
    const before = asked.length;
    await ask();
    assert.equal(asked.length, before, 'the last one is recent');
    const report = containerReport(ContainerPhase.RUNNING, 1n);
    assert.ok(report.object?.$case === 'container');
    await time.pass(100);
    const later = { ...report.object.value, id: 'ef'.repeat(32), startedAtNs: time.clock.nowNs() };
    view.apply({ ...report, id: later.id, object: { $case: 'container', value: later } });
    const worked = countOf(runc);
    await ask();
    assert.equal(countOf(runc), worked + 1);
    await ask();
    assert.equal(countOf(runc), worked + 1, 'what is not there then is not looked for again');
  });

  it('does not take a sample that began before for one of what has just started', async () => {
    let release = () => {};
    worker = () =>
      new Promise((resolve) => {
        release = resolve;
      });
    const first = ask();
    await time.pass(100);
    const report = containerReport(ContainerPhase.RUNNING, 2n);
    assert.ok(report.object?.$case === 'container');
    const started = { ...report.object.value, startedAtNs: time.clock.nowNs() };
    view.apply({ ...report, object: { $case: 'container', value: started } });
    const second = ask();
    worker = async () => undefined;
    release();
    await Promise.all([first, second]);
    assert.equal(countOf(runc), 2);
  });

  it('takes a sample at once for what was sampled before it started', async () => {
    const reportOf = (phase: ContainerPhase, revision: bigint) => {
      const report = containerReport(phase, revision);
      assert.ok(report.object?.$case === 'container');
      const value = { ...report.object.value, startedAtNs: time.clock.nowNs() };
      view.apply({ ...report, object: { $case: 'container', value } });
    };
    reportOf(ContainerPhase.CREATED, 2n);
    hasFigures = false;
    await ask();
    await time.pass(100);
    reportOf(ContainerPhase.RUNNING, 3n);
    hasFigures = true;
    await ask();
    assert.equal(countOf(runc), 2);
    assert.ok(statistics.container(record())?.latest.cgroup !== undefined);
  });

  it('reads details only while somebody asks for metrics, and then every five seconds', async () => {
    await ask();
    await pass(10_000);
    assert.ok(asked.every(({ details }) => !details));
    await ask(true);
    assert.ok(statistics.container(record())?.detailed !== undefined);
    const before = asked.filter(({ owner, details }) => owner === runc && details).length;
    await pass(20_000);
    const more = asked.filter(({ owner, details }) => owner === runc && details).length - before;
    assert.ok(more >= 3 && more <= 5, `${more} in twenty seconds`);
  });

  it('waits for a slow owner once and not long, and keeps the others going', async () => {
    worker = () => new Promise(() => undefined);
    let answered = false;
    const first = ask().then(() => {
      answered = true;
    });
    await time.pass(2_000);
    assert.equal(answered, false);
    await pass(1_500);
    await first;
    assert.ok(statistics.sandbox(ID) !== undefined);
    assert.equal(statistics.container(record()), undefined);
    await ask();
    assert.equal(countOf(runc), 1, 'it is not asked again meanwhile');
    assert.ok(countOf(SANDBOX_MANAGER) > 1);
  });

  it('forgets the samples of an owner that fails or goes away, and has them again when it is back', async () => {
    await ask();
    worker = async () => {
      throw new Failure('unavailable', 'away');
    };
    await pass(1_500);
    assert.equal(statistics.container(record()), undefined);
    worker = async () => undefined;
    await pass(1_500);
    assert.ok(statistics.container(record()) !== undefined);
    // Silent for longer than an owner may be.
    for (let second = 0; second < 8; second += 1) {
      alive(SANDBOX_MANAGER);
      await time.pass(1_000);
    }
    assert.equal(statistics.container(record()), undefined);
    assert.ok(statistics.sandbox(ID) !== undefined);
  });
});
