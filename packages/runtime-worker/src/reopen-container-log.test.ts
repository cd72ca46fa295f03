// Reopening a log whose monitor is played: one that hangs, and one that is slow.

import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { closeSync, constants, existsSync, mkdirSync, openSync, readSync } from 'node:fs';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { VerbContext } from '@cribus/chassis/owner.ts';
import { createKeyedLock } from '@cribus/chassis/queue.ts';
import { ContainerPhase, ContainerRecord } from '@cribus/contracts/gen/node/v1/records.ts';
import { systemClock } from '@cribus/host/clock.ts';
import { afterEach, beforeEach, describe, it } from 'mocha';
import { MONITOR_CONTROL, monitorMessage, tellMonitor } from './monitor.ts';
import { reopenContainerLog } from './reopen-container-log.ts';
import { placesOf, type Worker } from './worker.ts';

const RESIZE = { resize: { columns: 80, rows: 24 } };
/** For the new log, in place of some seconds. */
const BUDGET_MS = 100;

describe('the log of a monitor', () => {
  let directory: string;
  let worker: Worker;
  let bundle: string;
  let logPath: string;
  let fifo: number;

  beforeEach(async () => {
    directory = await mkdtemp(join(tmpdir(), 'cribus-log-'));
    logPath = join(directory, '0.log');
    const record = ContainerRecord.fromPartial({
      ...{ id: 'abc', phase: ContainerPhase.RUNNING, logPath },
    });
    worker = {
      handler: 'runc',
      lifecycle: createKeyedLock(),
      store: { get: () => record },
      service: {
        config: { roots: { run: directory, state: directory } },
        clock: { ...systemClock, timeout: () => systemClock.timeout(BUDGET_MS) },
      },
    } as unknown as Worker;
    bundle = placesOf(worker, 'abc').bundle;
    mkdirSync(bundle, { recursive: true });
    execFileSync('mkfifo', [join(bundle, MONITOR_CONTROL)]);
    fifo = openSync(join(bundle, MONITOR_CONTROL), constants.O_RDONLY | constants.O_NONBLOCK);
  });
  afterEach(async () => {
    closeSync(fifo);
    await rm(directory, { recursive: true });
  });

  const reopen = (signal: AbortSignal) =>
    reopenContainerLog(worker)({ containerId: 'abc' }, { signal } as VerbContext);
  /** What the monitor has been told and not taken. */
  const told = (): string => {
    const bytes = Buffer.alloc(1000);
    try {
      return bytes.toString('utf8', 0, readSync(fifo, bytes));
    } catch {
      return '';
    }
  };

  it('is reopened never where that one hangs, which is told of nothing else either', async () => {
    await tellMonitor(bundle, RESIZE);
    await assert.rejects(reopen(systemClock.timeout(2_000)), {
      kind: 'timeout',
      message: /did not reopen its log/,
    });
    assert.equal(told(), monitorMessage(RESIZE));
  });

  it('is awaited, and left alone, where that one is slow and has taken the message', async () => {
    const reopened = reopen(systemClock.timeout(2_000));
    while (told() !== monitorMessage('reopen-log')) await systemClock.sleep(5);
    await systemClock.sleep(3 * BUDGET_MS);
    await writeFile(logPath, 'a line\n');
    await reopened;
    assert.ok(existsSync(logPath));
  });

  it('is not awaited for longer than the call may take', async () => {
    const reopened = reopen(systemClock.timeout(2 * BUDGET_MS));
    reopened.catch(() => undefined);
    while (told() !== monitorMessage('reopen-log')) await systemClock.sleep(5);
    await assert.rejects(reopened, { kind: 'timeout', message: /did not reopen its log/ });
  });
});
