// Limits changed by the engine's own `update`, as with systemd's cgroup driver; here with cgroupfs, where
// the engines take the command as well.

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { LinuxContainerResources } from '@cribus/contracts/gen/cri/v1/api.ts';
import { systemError } from '@cribus/host/errno.ts';
import { openWorkerFixture, type WorkerFixture } from '@cribus/runtime-worker/worker-fixture.ts';
import { after, before, describe, it } from 'mocha';
import { probeRunc } from './driver.ts';

const MIB = 1024 * 1024;

for (const engine of ['runc', 'crun']) {
  describe(`limits by ${engine} update`, () => {
    let fixture: WorkerFixture;
    before(async () => {
      fixture = await openWorkerFixture({
        handler: engine,
        family: 'runc',
        engine,
        probe: async (options) => ({ ...(await probeRunc(options)), limitsBy: 'engine' }),
      });
    });
    after(() => fixture.close());

    const file = (id: string, v1: string, v2: string) => {
      const { cgroups, store } = fixture.worker;
      const path = store.get(id)?.cgroupPath ?? '';
      const [controller] = v1.split('.');
      return readFileSync(
        cgroups.version === 'v1'
          ? `/sys/fs/cgroup/${controller}${path}/${v1}`
          : `/sys/fs/cgroup${path}/${v2}`,
        'utf8',
      ).trim();
    };
    const limits = (id: string) => [
      file(id, 'memory.limit_in_bytes', 'memory.max'),
      file(id, 'cpu.shares', 'cpu.weight'),
      file(id, 'cpu.cfs_quota_us', 'cpu.max'),
      file(id, 'cpuset.cpus', 'cpuset.cpus'),
    ];
    const update = (containerId: string, linux: object) =>
      fixture.verbs['update-container-resources'](
        { containerId, linux: LinuxContainerResources.fromPartial(linux), annotations: {} },
        fixture.context(),
      );

    it('are changed before the start and after it, and none when one is refused', async () => {
      const containerId = await fixture.create('limited', { command: ['sleep', '1000'] });
      await update(containerId, { memoryLimitInBytes: 80 * MIB });
      assert.equal(limits(containerId)[0], String(80 * MIB));
      await fixture.verbs['start-container']({ containerId }, fixture.context());
      await update(containerId, { memoryLimitInBytes: 120 * MIB, cpuQuota: 30_000 });
      const before = limits(containerId);
      assert.equal(before[0], String(120 * MIB));
      assert.match(before[2] ?? '', /^30000\b/);
      const refused = { memoryLimitInBytes: 60 * MIB, cpuShares: 50, cpusetCpus: '4000' };
      await assert.rejects(update(containerId, refused), { kind: 'invalid_argument' });
      assert.deepEqual(limits(containerId), before);
      const { resources } = fixture.worker.store.get(containerId) ?? {};
      assert.deepEqual(
        [resources?.memoryLimitInBytes, resources?.cpuShares],
        [BigInt(120 * MIB), 0n],
      );
      await fixture.verbs['remove-container']({ containerId }, fixture.context());
    });

    it('stay as they are where no room can be made for a memory limit, whatever the engine would do', async () => {
      const containerId = await fixture.create('full', { command: ['sleep', '1000'] });
      await fixture.verbs['start-container']({ containerId }, fixture.context());
      const before = limits(containerId);
      const { cgroups } = fixture.worker;
      const makeRoom = async () => {
        throw systemError('write', 'EBUSY', 'memory.max: too much is in use');
      };
      Object.assign(fixture.worker, { cgroups: { ...cgroups, makeRoom } });
      try {
        const less = { memoryLimitInBytes: 60 * MIB, cpuShares: 50 };
        await assert.rejects(update(containerId, less), { kind: 'wrong_state', message: /in use/ });
      } finally {
        Object.assign(fixture.worker, { cgroups });
      }
      assert.deepEqual(limits(containerId), before);
      await fixture.verbs['remove-container']({ containerId }, fixture.context());
    });
  });
}
