// Order and bounds of the concurrency pieces.

import assert from 'node:assert/strict';
import { systemClock } from '@cribus/host/clock.ts';
import { describe, it } from 'mocha';
import { createKeyedLock, createSemaphore } from './queue.ts';

describe('queue', () => {
  it('runs one key in order, also after a failure, and keys side by side', async () => {
    const lock = createKeyedLock();
    const seen: string[] = [];
    const slow = lock.run('a', async () => {
      await systemClock.sleep(30);
      seen.push('a1');
      throw new Error('a1');
    });
    const next = lock.run('a', async () => void seen.push('a2'));
    const other = lock.run('b', async () => void seen.push('b'));
    await assert.rejects(slow, /a1/);
    await Promise.all([next, other]);
    assert.deepEqual(seen, ['b', 'a1', 'a2']);
  });

  it('lets one that waits for a key leave, and keeps those behind it waiting', async () => {
    const lock = createKeyedLock();
    const seen: string[] = [];
    const slow = lock.run('a', async () => {
      await systemClock.sleep(30);
      seen.push('first');
    });
    const leaving = new AbortController();
    const left = lock.run('a', async () => void seen.push('left'), leaving.signal);
    const last = lock.run('a', async () => void seen.push('last'));
    leaving.abort(new Error('left'));
    await assert.rejects(left, /left/);
    assert.deepEqual(seen, []);
    await Promise.all([slow, last]);
    assert.deepEqual(seen, ['first', 'last']);
  });

  it('lets at most max run, and a waiter leave', async () => {
    const semaphore = createSemaphore(2);
    let running = 0;
    let most = 0;
    const work = async () => {
      running += 1;
      most = Math.max(most, running);
      await systemClock.sleep(10);
      running -= 1;
    };
    const never = new AbortController().signal;
    const leaving = new AbortController();
    const all = [1, 2, 3, 4, 5].map(() => semaphore.run(work, never));
    const left = semaphore.run(work, leaving.signal);
    leaving.abort(new Error('left'));
    await assert.rejects(left, /left/);
    await Promise.all(all);
    await semaphore.run(work, never);
    assert.equal(most, 2);
  });
});
