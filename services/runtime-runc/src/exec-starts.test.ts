// Many commands at one moment, with an engine that takes its time to start each.

import assert from 'node:assert/strict';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { availableParallelism, tmpdir } from 'node:os';
import { join } from 'node:path';
import { openWorkerFixture, type WorkerFixture } from '@cribus/runtime-worker/worker-fixture.ts';
import { after, before, describe, it } from 'mocha';
import { probeRunc } from './driver.ts';

const STARTS_AT_ONCE = Math.max(4, 2 * availableParallelism());
/** Longer than the time-out of the commands. */
const START_S = 1.2;

describe('commands that are started at one moment', () => {
  const directory = mkdtempSync(join(tmpdir(), 'cribus-slow-engine-'));
  const log = join(directory, 'log');
  let fixture: WorkerFixture;
  let id = '';

  before(async function () {
    this.timeout(60_000);
    const engine = join(directory, 'runc');
    const slow = `case " $* " in *" exec "*) echo + >>${log}; sleep ${START_S}; echo - >>${log};; esac`;
    writeFileSync(engine, `#!/bin/sh\n${slow}\nexec runc "$@"\n`, { mode: 0o755 });
    fixture = await openWorkerFixture({
      ...{ handler: 'slow', family: 'runc', engine, probe: probeRunc },
    });
    id = await fixture.create('shell', { command: ['sleep', '1000'] });
    await fixture.verbs['start-container']({ containerId: id }, fixture.context());
  });
  after(async () => {
    await fixture.close();
    rmSync(directory, { recursive: true });
  });

  it('are started a few at a time, and the time of each is counted from when it runs', async () => {
    const count = STARTS_AT_ONCE + 1;
    const outcomes = await Promise.all(
      Array.from({ length: count }, (_, index) => fixture.exec(id, ['echo', `${index}`], 1)),
    );
    assert.deepEqual(
      outcomes.map(({ stdout, exitCode }) => [stdout, exitCode]),
      [...outcomes.keys()].map((index) => [`${index}\n`, 0]),
    );
    let running = 0;
    const counts = readFileSync(log, 'utf8')
      .trim()
      .split('\n')
      .map((sign) => {
        running += sign === '+' ? 1 : -1;
        return running;
      });
    assert.equal(Math.max(...counts), STARTS_AT_ONCE);
  });

  it('are killed when their own time is over, however long they took to start', async () => {
    await assert.rejects(fixture.exec(id, ['sleep', '100'], 1), {
      kind: 'timeout',
      message: /was killed after 1000 ms/,
    });
  });
});
