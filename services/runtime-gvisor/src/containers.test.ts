// The worker's verbs with the real runsc and conmon, the other owners played by the fixture.

import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { ContainerPhase } from '@cribus/contracts/gen/node/v1/records.ts';
import { systemClock } from '@cribus/host/clock.ts';
import { openWorkerFixture, type WorkerFixture } from '@cribus/runtime-worker/worker-fixture.ts';
import { after, before, describe, it } from 'mocha';
import { probeGvisor } from './driver.ts';

describe('containers in a Sentry', () => {
  let fixture: WorkerFixture;
  const record = (id: string) => fixture.worker.store.get(id);
  const start = (containerId: string) =>
    fixture.verbs['start-container']({ containerId }, fixture.context());
  const remove = (containerId: string) =>
    fixture.verbs['remove-container']({ containerId }, fixture.context());
  const ended = (id: string) => fixture.worker.exits.ended(id, systemClock.timeout(15_000));

  before(async function () {
    this.timeout(60_000);
    fixture = await openWorkerFixture({
      handler: 'gvisor',
      family: 'gvisor',
      engine: 'runsc',
      probe: probeGvisor,
    });
    const answer = await fixture.verbs['start-sandbox'](
      { sandbox: fixture.sandbox },
      fixture.context(),
    );
    assert.ok((answer.process?.pid ?? 0) > 0);
  });
  after(() => fixture.close());

  it('runs a container to its end, with its log and exit code', async () => {
    const id = await fixture.create('ends', { command: ['sh', '-c', 'echo hello; exit 7'] });
    await start(id);
    await ended(id);
    assert.equal(record(id)?.exitCode, 7);
    assert.match(await readFile(record(id)?.logPath ?? '', 'utf8'), / stdout F hello\n$/);
    await remove(id);
    assert.equal(record(id), undefined);
  });

  it('is not taken in by a container that closes its output', async () => {
    const id = await fixture.create('closes', {
      command: ['sh', '-c', 'exec >&- 2>&-; sleep 1; exit 4'],
    });
    await start(id);
    await systemClock.sleep(500);
    assert.equal(record(id)?.phase, ContainerPhase.RUNNING);
    await ended(id);
    assert.equal(record(id)?.exitCode, 4);
    await remove(id);
  });

  it('executes, with output, exit code and timeout, and stops', async () => {
    const id = await fixture.create('exec', { command: ['sleep', '1000'] });
    await start(id);
    const said = await fixture.exec(id, ['sh', '-c', 'echo out; echo err >&2; exit 5']);
    assert.deepEqual(said, { stdout: 'out\n', stderr: 'err\n', exitCode: 5 });
    await assert.rejects(fixture.exec(id, ['sleep', '500'], 1), { kind: 'timeout' });
    await assert.rejects(fixture.exec(id, ['no-such-command']), { kind: 'invalid_argument' });
    const left = await fixture.exec(id, ['ps']);
    assert.doesNotMatch(left.stdout, /sleep 500/);
    await fixture.verbs['stop-container']({ containerId: id, timeoutS: 1n }, fixture.context());
    assert.equal(record(id)?.phase, ContainerPhase.EXITED);
    assert.ok([137, 143].includes(record(id)?.exitCode ?? 0));
    await remove(id);
  });

  it('keeps its containers over a restart, and loses them with the Sentry', async () => {
    const id = await fixture.create('stays', { command: ['sleep', '1000'] });
    await start(id);
    await fixture.restart();
    assert.equal(record(id)?.phase, ContainerPhase.RUNNING);
    assert.equal((await fixture.exec(id, ['echo', 'here'])).stdout, 'here\n');
    process.kill(record(fixture.sandbox.id)?.process?.pid ?? 0, 'SIGKILL');
    await Promise.all([ended(id), ended(fixture.sandbox.id)]);
    assert.equal(record(id)?.exitCode, 137);
    await systemClock.sleep(100);
    assert.ok(fixture.asked.some((each) => each.verb === 'report-sandbox-exit'));
    await remove(id);
  });
});
