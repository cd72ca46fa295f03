import assert from 'node:assert/strict';
import { describe, it } from 'mocha';
import { systemClock } from './clock.ts';

describe('systemClock', () => {
  it('tells a strictly increasing wall clock', () => {
    const times = Array.from({ length: 10_000 }, () => systemClock.nowNs());
    assert.ok(times.every((time, index) => index === 0 || time > (times[index - 1] ?? time)));
    assert.ok(times.every((time) => time > 1_700_000_000_000_000_000n));
  });

  it('sleeps, and is woken by a signal with its reason', async () => {
    const before = systemClock.monotonicMs();
    await systemClock.sleep(20);
    assert.ok(systemClock.monotonicMs() - before >= 19);

    const reason = new Error('enough');
    const controller = new AbortController();
    const sleeping = systemClock.sleep(60_000, controller.signal);
    controller.abort(reason);
    await assert.rejects(sleeping, reason);
    await assert.rejects(systemClock.sleep(1, controller.signal), reason);
  });

  it('times out with a TimeoutError, and not early on delays beyond 31 bits', async () => {
    const signal = systemClock.timeout(5);
    const far = systemClock.timeout(2 ** 40);
    await assert.rejects(systemClock.sleep(60_000, signal), { name: 'TimeoutError' });
    assert.equal(far.aborted, false);
  });
});
