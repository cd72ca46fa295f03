// The stack installed from a built tree by deploy/install.sh, under systemd.

import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { exec } from '@cribus/e2e/harness/pods.ts';
import { after, before, describe, it } from 'mocha';
import {
  type InstalledNode,
  pidOf,
  provideNode,
  removePods,
  run,
  settle,
  startPod,
  TREE,
} from './installed-node.ts';

const installByScript = () => void run(join(TREE, 'deploy', 'install.sh'));

describe('deploy/install.sh', () => {
  let node: InstalledNode;
  before(async () => {
    if (existsSync('/var/lib/dpkg/info/cribus.list')) run('dpkg', '--purge', 'cribus');
    node = await provideNode('systemd', installByScript);
  });
  after(async () => {
    await removePods(node);
    await node.close();
  });

  it('installs and starts a node that runs pods, for now and for every boot', async () => {
    assert.equal(run('systemctl', 'is-enabled', 'cribus.target'), 'enabled');
    const { containerId } = await startPod(node);
    assert.equal((await exec(node.cri, containerId, ['echo', 'here'])).stdout, 'here\n');
  });

  it('run again renews the services and keeps the containers', async () => {
    const { containerId } = await startPod(node, { podUid: 'd2f0' });
    const before_ = pidOf(containerId);
    const main = run('systemctl', 'show', '-P', 'MainPID', 'cribus-runtime-runc');
    installByScript();
    await settle(node);
    assert.notEqual(run('systemctl', 'show', '-P', 'MainPID', 'cribus-runtime-runc'), main);
    assert.equal(pidOf(containerId), before_);
    assert.equal((await exec(node.cri, containerId, ['echo', 'here'])).stdout, 'here\n');
  });
});
