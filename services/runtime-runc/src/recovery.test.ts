// What a worker makes of a host that is not as its records say: restarted, without the engine, with
// things that nobody recorded, or unwilling to let go of what a create had made.

import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { Failure } from '@cribus/contracts/failure.ts';
import { ContainerPhase } from '@cribus/contracts/gen/node/v1/records.ts';
import { systemClock } from '@cribus/host/clock.ts';
import { mountsBelow, mountTmpfs, unmountTree } from '@cribus/host/mounts.ts';
import { signalProcess, waitForExit } from '@cribus/host/processes.ts';
import { openWorkerFixture, type WorkerFixture } from '@cribus/runtime-worker/worker-fixture.ts';
import { afterEach, beforeEach, describe, it } from 'mocha';
import { probeRunc } from './driver.ts';

const SLEEP = { command: ['sleep', '1000'] };

describe('a worker on a changed host', () => {
  let fixture: WorkerFixture;
  let engineMissing: boolean;
  const record = (id: string) => fixture.worker.store.get(id);
  const start = (containerId: string) =>
    fixture.verbs['start-container']({ containerId }, fixture.context());
  const stop = (containerId: string) =>
    fixture.verbs['stop-container']({ containerId, timeoutS: 0n }, fixture.context());
  const remove = (containerId: string) =>
    fixture.verbs['remove-container']({ containerId }, fixture.context());

  beforeEach(async () => {
    engineMissing = false;
    fixture = await openWorkerFixture({
      handler: 'runc',
      family: 'runc',
      engine: 'runc',
      probe: async (options) => {
        if (engineMissing) throw new Failure('unavailable', 'engine /no/runc is not installed');
        return await probeRunc(options);
      },
    });
  });
  afterEach(async () => {
    await fixture.close();
  });

  /** Ends its processes without a word, and has its record say that they were of another boot. */
  async function forgetAtReboot(id: string): Promise<void> {
    const now = record(id);
    assert.ok(now?.process !== undefined && now.monitor !== undefined);
    for (const identity of [now.monitor, now.process]) {
      signalProcess(identity, 'SIGKILL');
      await waitForExit(identity, systemClock.timeout(5_000));
    }
    await fixture.worker.store.put({
      ...now,
      process: { ...now.process, bootId: 'an earlier boot' },
      monitor: { ...now.monitor, bootId: 'an earlier boot' },
    });
    unmountTree(join(fixture.worker.paths.run, id));
  }

  it('records what ran before the host was restarted as exited, 255, and removes it', async () => {
    const ran = await fixture.create('ran', SLEEP);
    const waited = await fixture.create('waited', SLEEP);
    await start(ran);
    fixture.worker.exits.close();
    for (const id of [ran, waited]) await forgetAtReboot(id);
    await fixture.restart();
    for (const id of [ran, waited]) {
      assert.equal(record(id)?.phase, ContainerPhase.EXITED);
      assert.equal(record(id)?.exitCode, 255);
      assert.match(record(id)?.message ?? '', /restarted/);
      await stop(id);
      await remove(id);
      assert.equal(record(id), undefined);
      assert.equal(existsSync(join(fixture.worker.paths.run, id)), false);
    }
  });

  it('sweeps bundles, mounts and monitors that no record knows', async () => {
    const lost = await fixture.create('lost', SLEEP);
    const monitor = record(lost)?.monitor;
    assert.ok(monitor !== undefined);
    fixture.worker.exits.close();
    await fixture.worker.store.remove(lost);
    const stray = 'ab'.repeat(32);
    const rootfs = join(fixture.worker.paths.run, stray, 'rootfs');
    await mkdir(rootfs, { recursive: true });
    mountTmpfs(rootfs, 'size=64k');
    await fixture.restart();
    for (const id of [lost, stray]) {
      assert.equal(existsSync(join(fixture.worker.paths.run, id)), false);
      assert.equal(existsSync(join(fixture.worker.paths.containers, id)), false);
    }
    await waitForExit(monitor, systemClock.timeout(5_000));
    assert.deepEqual(mountsBelow(fixture.worker.paths.run), []);
  });

  it('serves, stops and removes without its engine, and says what is missing to a create', async () => {
    const id = await fixture.create('stays', SLEEP);
    await start(id);
    engineMissing = true;
    await fixture.restart();
    assert.equal(record(id)?.phase, ContainerPhase.RUNNING);
    await assert.rejects(fixture.create('new', SLEEP), {
      kind: 'unavailable',
      message: /\/no\/runc/,
    });
    await stop(id);
    assert.equal(record(id)?.exitCode, 137);
    await remove(id);
    assert.equal(record(id), undefined);
    assert.equal(existsSync(join(fixture.worker.paths.engineRoot, id)), false);
  });

  it('lists what a failed create could not undo as unknown, until it is removed', async () => {
    const { engine, store } = fixture.worker;
    const freed = engine.remove;
    engine.remove = async () => {
      throw new Failure('kubelet_reason', 'the engine is wedged');
    };
    const refused = fixture.create('half', { command: ['/no/such/program'] });
    await assert.rejects(refused, { kind: 'invalid_argument' });
    const [half] = store.all();
    assert.equal(half?.phase, ContainerPhase.UNKNOWN);
    assert.match(half?.message ?? '', /creation failed .* the engine is wedged/);
    assert.equal(
      fixture.asked.some(({ verb }) => verb === 'end-lease'),
      false,
    );
    await assert.rejects(fixture.create('half', SLEEP), { kind: 'already_exists' });
    engine.remove = freed;
    await stop(half?.id ?? '');
    assert.equal(record(half?.id ?? '')?.phase, ContainerPhase.EXITED);
    await remove(half?.id ?? '');
    assert.deepEqual(store.all(), []);
    assert.ok(fixture.asked.some(({ verb }) => verb === 'end-lease'));
    await remove(await fixture.create('half', SLEEP));
  });
});
