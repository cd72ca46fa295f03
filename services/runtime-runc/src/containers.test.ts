// The worker's verbs with the real runc and conmon, the other owners played by the fixture.

import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { readFile, rename } from 'node:fs/promises';
import { join } from 'node:path';
import { ContainerPhase } from '@cribus/contracts/gen/node/v1/records.ts';
import { systemClock } from '@cribus/host/clock.ts';
import { openWorkerFixture, type WorkerFixture } from '@cribus/runtime-worker/worker-fixture.ts';
import { after, before, describe, it } from 'mocha';
import { probeRunc } from './driver.ts';

describe('containers under runc and conmon', () => {
  let fixture: WorkerFixture;
  const record = (id: string) => fixture.worker.store.get(id);
  const start = (containerId: string) =>
    fixture.verbs['start-container']({ containerId }, fixture.context());
  const stop = (containerId: string, timeoutS: number) =>
    fixture.verbs['stop-container']({ containerId, timeoutS: BigInt(timeoutS) }, fixture.context());
  const remove = (containerId: string) =>
    fixture.verbs['remove-container']({ containerId }, fixture.context());
  const ended = (id: string) => fixture.worker.exits.ended(id, systemClock.timeout(10_000));

  before(async () => {
    fixture = await openWorkerFixture({
      handler: 'runc',
      family: 'runc',
      engine: 'runc',
      probe: probeRunc,
    });
  });
  after(() => fixture.close());

  it('runs a container to its end, with its log and exit code', async () => {
    const id = await fixture.create('ends', { command: ['sh', '-c', 'echo hello; exit 7'] });
    assert.equal(record(id)?.phase, ContainerPhase.CREATED);
    await start(id);
    await ended(id);
    const done = record(id);
    assert.equal(done?.phase, ContainerPhase.EXITED);
    assert.equal(done?.exitCode, 7);
    assert.equal(done?.reason, 'Error');
    assert.ok((done?.finishedAtNs ?? 0n) >= (done?.startedAtNs ?? 1n));
    assert.match(await readFile(done?.logPath ?? '', 'utf8'), / stdout F hello\n$/);
    await remove(id);
    assert.equal(record(id), undefined);
    assert.equal(existsSync(join(fixture.worker.paths.run, id)), false);
    assert.equal(existsSync(join(fixture.worker.paths.containers, id)), false);
    assert.ok(fixture.asked.some((each) => each.verb === 'end-lease'));
  });

  it('refuses a second start and a taken name, and answers a lost create again', async () => {
    const config = { command: ['sleep', '1000'] };
    const id = await fixture.create('twice', config);
    assert.equal(await fixture.create('twice', config), id);
    await start(id);
    await assert.rejects(start(id), { kind: 'wrong_state' });
    await assert.rejects(fixture.create('twice', config), { kind: 'already_exists' });
    await remove(id);
    await remove(id);
  });

  it('stops by the signal, and kills what ignores it', async () => {
    const polite = await fixture.create('polite', {
      command: ['sh', '-c', 'trap "exit 3" TERM; while :; do sleep 0.05; done'],
    });
    const deaf = await fixture.create('deaf', {
      command: ['sh', '-c', 'trap "" TERM; while :; do sleep 0.05; done'],
    });
    await Promise.all([start(polite), start(deaf)]);
    await systemClock.sleep(300);
    await Promise.all([stop(polite, 10), stop(deaf, 1)]);
    assert.equal(record(polite)?.exitCode, 3);
    assert.equal(record(deaf)?.exitCode, 137);
    await Promise.all([remove(polite), remove(deaf)]);
  });

  it('executes, with output, exit code, timeout and a command that is not there', async () => {
    const id = await fixture.create('exec', { command: ['sleep', '1000'] });
    await start(id);
    const said = await fixture.exec(id, ['sh', '-c', 'echo out; echo err >&2; exit 5']);
    assert.deepEqual(said, { stdout: 'out\n', stderr: 'err\n', exitCode: 5 });
    const much = await fixture.exec(id, ['dd', 'if=/dev/zero', 'bs=1024', 'count=3000']);
    assert.equal(much.stdout.length, 3000 * 1024);
    await assert.rejects(fixture.exec(id, ['sh', '-c', 'sleep 500; true'], 1), { kind: 'timeout' });
    await assert.rejects(fixture.exec(id, ['no-such-command']), { kind: 'invalid_argument' });
    const left = await fixture.exec(id, ['ps']);
    assert.doesNotMatch(left.stdout, /sleep 500/);
    await remove(id);
  });

  it('reopens a log that was renamed away, and leaves one that is there', async () => {
    const id = await fixture.create('log', {
      command: ['sh', '-c', 'while :; do echo line; sleep 0.05; done'],
    });
    await start(id);
    const path = record(id)?.logPath ?? '';
    const reopen = () =>
      fixture.verbs['reopen-container-log']({ containerId: id }, fixture.context());
    await reopen();
    await rename(path, `${path}.1`);
    await reopen();
    await systemClock.sleep(200);
    assert.match(await readFile(path, 'utf8'), /stdout F line/);
    await remove(id);
    await assert.rejects(reopen(), { kind: 'not_found' });
  });

  it('keeps a container over a restart, and records what ended meanwhile', async () => {
    const stays = await fixture.create('stays', { command: ['sleep', '1000'] });
    const ends = await fixture.create('meanwhile', { command: ['sh', '-c', 'sleep 0.4; exit 9'] });
    await Promise.all([start(stays), start(ends)]);
    fixture.worker.exits.close();
    await systemClock.sleep(1000);
    await fixture.restart();
    assert.equal(record(stays)?.phase, ContainerPhase.RUNNING);
    assert.equal(record(ends)?.exitCode, 9);
    const said = await fixture.exec(stays, ['echo', 'still here']);
    assert.equal(said.stdout, 'still here\n');
    const described = await fixture.verbs.describe({ id: stays }, fixture.context());
    assert.equal(JSON.parse(described.info['info'] ?? '').sandboxID, fixture.sandbox.id);
    await stop(stays, 0);
    assert.equal(record(stays)?.exitCode, 137);
    await Promise.all([remove(stays), remove(ends)]);
  });

  it('kills and reports a container whose monitor died', async () => {
    const id = await fixture.create('lost', { command: ['sleep', '1000'] });
    await start(id);
    process.kill(record(id)?.monitor?.pid ?? 0, 'SIGKILL');
    await ended(id);
    assert.equal(record(id)?.reason, 'MonitorLost');
    assert.equal(record(id)?.exitCode, 137);
    await remove(id);
  });

  it('leaves nothing of a create that fails', async () => {
    const before = fixture.worker.store.all().length;
    await assert.rejects(fixture.create('bad', { command: ['/no/such/program'] }), {
      kind: 'invalid_argument',
    });
    await assert.rejects(
      fixture.create('mount', {
        mounts: [{ hostPath: '/no/such/path', containerPath: '/x' } as never],
      }),
      { kind: 'invalid_argument' },
    );
    assert.equal(fixture.worker.store.all().length, before);
  });
});
