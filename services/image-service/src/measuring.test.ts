import assert from 'node:assert/strict';
import { systemClock } from '@cribus/host/clock.ts';
import { afterEach, beforeEach, describe, it } from 'mocha';
import { createMeasuring } from './measuring.ts';

describe('measuring what images and containers take', () => {
  let ending: AbortController;
  let steps: string[];
  let logged: string[];
  /** The timers that were asked for, to be let go of by the test. */
  let timers: { readonly ms: number; readonly end: () => void; readonly signal: AbortSignal }[];
  beforeEach(() => {
    ending = new AbortController();
    steps = [];
    logged = [];
    timers = [];
  });
  afterEach(() => ending.abort());

  /** `walk` is the one of the images' layers. */
  function measuringBy(walk: () => Promise<void>) {
    const sleep = (ms: number, signal: AbortSignal) =>
      new Promise<void>((resolve, reject) => {
        signal.addEventListener('abort', () => reject(signal.reason), { once: true });
        timers.push({ ms, signal, end: resolve });
      });
    const log = { warn: (_fields: object, message: string) => logged.push(message) };
    return createMeasuring({
      service: { stopping: ending.signal, clock: { ...systemClock, sleep }, log },
      store: { layers: { measure: walk } },
      writableLayers: { measure: async () => void steps.push('containers') },
    } as unknown as Parameters<typeof createMeasuring>[0]);
  }
  const turn = () => systemClock.sleep(5);

  it('begins with the containers, and keeps first answers waiting for the whole round', async () => {
    let walked = () => {};
    const measuring = measuringBy(() => {
      steps.push('images');
      return new Promise((resolve) => {
        walked = resolve;
      });
    });
    const first = measuring.firstRound(ending.signal).then(() => steps.push('answer'));
    const [limit] = timers;
    void measuring.forEver();
    await turn();
    assert.deepEqual(steps, ['containers', 'images']);
    walked();
    await first;
    assert.deepEqual(steps, ['containers', 'images', 'answer']);
    assert.equal(limit?.signal.aborted, true, 'its timer is gone');
    await measuring.firstRound(ending.signal);
  });

  it('answers after five seconds also where the round takes longer, and not once the service ends', async () => {
    const measuring = measuringBy(() => new Promise(() => {}));
    void measuring.forEver();
    const first = measuring.firstRound(ending.signal);
    assert.equal(timers[0]?.ms, 5_000);
    timers[0]?.end();
    await first;
    const second = measuring.firstRound(ending.signal);
    ending.abort(new Error('the end'));
    await assert.rejects(second, /the end/);
  });

  it('goes on after a round that failed, which was none', async () => {
    let rounds = 0;
    const measuring = measuringBy(async () => {
      rounds += 1;
      if (rounds === 1) throw new Error('gone meanwhile');
    });
    let answered = false;
    void measuring.firstRound(ending.signal).then(() => {
      answered = true;
    });
    void measuring.forEver();
    await turn();
    assert.deepEqual([answered, logged.length], [false, 1]);
    timers.at(-1)?.end();
    await turn();
    assert.deepEqual([answered, rounds], [true, 2]);
  });
});
