// The package of another version and of this one again, installed with pods running: both directions
// between two versions. It leaves its pods behind for a reboot.

import assert from 'node:assert/strict';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { ContainerState, ListContainersRequest } from '@cribus/contracts/gen/cri/v1/api.ts';
import { exec, type RunningPod } from '@cribus/e2e/harness/pods.ts';
import { after, before, describe, it } from 'mocha';
import {
  bootId,
  CONFIG,
  type InstalledNode,
  packageFile,
  pidOf,
  provideNode,
  run,
  STATE,
  settle,
  startPod,
} from './installed-node.ts';

describe('an upgrade and a downgrade with pods', () => {
  let node: InstalledNode;
  let pods: readonly RunningPod[];

  before(async () => {
    node = await provideNode();
    pods = [await startPod(node, { handler: 'runc' }), await startPod(node, { handler: 'crun' })];
  });
  after(async () => {
    await node?.close();
  });

  for (const which of ['other', 'this'] as const) {
    it(`to ${which} version keeps every container, its records and the configuration`, async () => {
      const pids = () => pods.map(({ containerId }) => pidOf(containerId));
      const before_ = pids();
      const file = packageFile(which);
      run('dpkg', '--force-confold', '--force-downgrade', '-i', file);
      await settle(node);
      const version = run('dpkg-deb', '-f', file, 'Version');
      assert.equal(run('dpkg-query', '-W', '-f=${Version}', 'cribus'), version);
      assert.deepEqual(pids(), before_);
      for (const { containerId } of pods) {
        assert.equal((await exec(node.cri, containerId, ['echo', which])).stdout, `${which}\n`);
      }
      // Each version writes records of its own beside those that it found.
      const list = ListContainersRequest.fromPartial({});
      const { containers } = await node.cri.call('listContainers', list);
      assert.ok(containers.every(({ state }) => state === ContainerState.CONTAINER_RUNNING));
      assert.equal(containers.length, pods.length);
      pods = [...pods, await startPod(node, { handler: which === 'this' ? 'runc' : 'crun' })];
      assert.match(readFileSync(CONFIG, 'utf8'), /driver = "systemd"/);
    });
  }

  it('leaves its pods to the reboot', () => {
    const left = { bootId: bootId(), pods: pods.map(({ podId, ip }) => ({ podId, ip })) };
    writeFileSync(join(STATE, 'left.json'), JSON.stringify(left));
  });
});
