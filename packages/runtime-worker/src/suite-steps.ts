// For tests: what the suites of sessions share.

import assert from 'node:assert/strict';
import { readdirSync, readFileSync } from 'node:fs';
import { systemClock } from '@cribus/host/clock.ts';
import type { WorkerFixture } from './worker-fixture.ts';

/** The worker that a suite's tests run against, made before the first. */
export interface SuiteWorker {
  readonly fixture: WorkerFixture;
  start(containerId: string): Promise<unknown>;
}

/** Pids of the host whose command line has these words. */
export function processesWith(words: string): string[] {
  return readdirSync('/proc').filter((name) => {
    if (!/^\d+$/.test(name)) return false;
    try {
      return readFileSync(`/proc/${name}/cmdline`, 'utf8').replaceAll('\0', ' ').includes(words);
    } catch {
      return false;
    }
  });
}

export async function eventually(what: string, check: () => Promise<boolean>): Promise<void> {
  const signal = systemClock.timeout(10_000);
  while (!(await check())) {
    assert.ok(!signal.aborted, what);
    await systemClock.sleep(30);
  }
}

export const CHUNK = Buffer.alloc(64 * 1024, 'abcdefghijklmnop\n');
