// Joined signals: whose reason they take, and that nothing of them stays.

import assert from 'node:assert/strict';
import { getEventListeners } from 'node:events';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { describe, it } from 'mocha';
import { systemClock } from './clock.ts';
import { joinSignals, withJoinedSignal } from './joined-signals.ts';

const listeners = (signal: AbortSignal): number => getEventListeners(signal, 'abort').length;

describe('joined signals', () => {
  it('abort with the first of them, with its reason, and let go of the others', () => {
    const [one, other] = [new AbortController(), new AbortController()];
    const { signal } = joinSignals([one.signal, other.signal]);
    assert.equal(signal.aborted, false);
    other.abort('the other');
    one.abort('the one');
    assert.equal(signal.reason, 'the other');
    assert.deepEqual(
      [one, other].map((each) => listeners(each.signal)),
      [0, 0],
    );
  });

  it('are aborted at once where one of them is', () => {
    const living = new AbortController();
    const { signal } = joinSignals([living.signal, AbortSignal.abort('before')]);
    assert.equal(signal.reason, 'before');
    assert.equal(listeners(living.signal), 0);
  });

  it('abort no more once they are released', () => {
    const source = new AbortController();
    const { signal, release } = joinSignals([source.signal, source.signal]);
    release();
    assert.equal(listeners(source.signal), 0);
    source.abort();
    assert.equal(signal.aborted, false);
  });

  it('abort by a timer that nobody else holds', async () => {
    const never = new AbortController().signal;
    await withJoinedSignal([never, systemClock.timeout(20)], async (signal) => {
      await assert.rejects(systemClock.sleep(10_000, signal), { name: 'TimeoutError' });
    });
    assert.equal(listeners(never), 0);
  });

  it('are released at the end of the work, also when it fails', async () => {
    const source = new AbortController().signal;
    const during = await withJoinedSignal([source], async () => listeners(source));
    assert.equal(during, 1);
    await assert.rejects(
      withJoinedSignal([source], async () => {
        throw new Error('no');
      }),
      /no/,
    );
    assert.equal(listeners(source), 0);
  });

  it('leave nothing with a source that lives on, however often and whether time was up', async () => {
    setFlagsFromString('--expose-gc');
    const collect = runInNewContext('gc') as () => void;
    const lasting = new AbortController().signal;
    const use = (limitMs: number) =>
      withJoinedSignal([lasting, systemClock.timeout(limitMs)], async (signal) => {
        signal.addEventListener('abort', () => undefined);
        if (limitMs === 0) await systemClock.sleep(1_000, signal).catch(() => undefined);
      });
    const heapAfter = async (count: number): Promise<number> => {
      for (let done = 0; done < count; done += 100) {
        await Promise.all(
          Array.from({ length: 100 }, (_, each) => use(each % 2 === 0 ? 0 : 60_000)),
        );
      }
      // What finalizers let go of in one turn is collected in the next.
      for (let turn = 0; turn < 3; turn += 1) {
        collect();
        await new Promise((resolve) => setImmediate(resolve));
      }
      return process.memoryUsage().heapUsed;
    };
    await heapAfter(1_000);
    const before = await heapAfter(1_000);
    const grownBytes = (await heapAfter(20_000)) - before;
    assert.equal(listeners(lasting), 0);
    // A tenth of what AbortSignal.any leaves there.
    assert.ok(grownBytes < 1_000_000, `the heap grew by ${grownBytes} bytes`);
  });
});
