// The Debian package on a machine with systemd and cgroup v2: installed, used, and restarted part by
// part with pods running.

import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { connect } from 'node:net';
import { promisify } from 'node:util';
import { exec, type RunningPod } from '@cribus/e2e/harness/pods.ts';
import { eventually } from '@cribus/e2e/harness/stack.ts';
import { systemClock } from '@cribus/host/clock.ts';
import { after, before, describe, it } from 'mocha';
import {
  type InstalledNode,
  pidOf,
  provideNode,
  removePods,
  run,
  SERVICES,
  settle,
  startPod,
} from './installed-node.ts';

describe('the package on a machine with systemd and cgroup v2', () => {
  let node: InstalledNode;
  let pods: readonly RunningPod[];
  const pids = () => pods.map(({ containerId }) => pidOf(containerId));

  before(async () => {
    node = await provideNode();
  });
  after(async () => {
    await removePods(node);
    await node.close();
  });

  it('starts every unit, and cribus status and cribus doctor answer', async () => {
    for (const unit of [...SERVICES, 'cribus-nats', 'cribus-redis']) {
      assert.equal(run('systemctl', 'is-active', `${unit}.service`), 'active', unit);
    }
    assert.equal(run('systemctl', 'is-active', 'cribus-gateway.socket'), 'active');
    // Both ask the services, which a slow machine may keep from answering in time.
    await eventually(
      'cribus status',
      async () => /^cri-gateway +running/m.test(run('cribus', 'status')),
      120_000,
    );
    await eventually(
      'cribus doctor',
      async () => /^ok +cgroups +v2 with .*; driver systemd$/m.test(run('cribus', 'doctor')),
      120_000,
    );
  });

  it('runs pods of runc and crun in scopes of the slice that the kubelet names', async () => {
    pods = [await startPod(node, { handler: 'runc' }), await startPod(node, { handler: 'crun' })];
    for (const { containerId } of pods) {
      const cgroup = (await exec(node.cri, containerId, ['cat', '/proc/1/cgroup'])).stdout;
      assert.match(cgroup, /^0::\//);
      const list = ['list-units', '--plain', '--no-legend', `cribus-${containerId}*`];
      assert.match(run('systemctl', ...list), /\.scope +loaded active running/);
    }
  });

  it('keeps containers over a restart of each service, and the gateway refuses no call meanwhile', async () => {
    const before_ = pids();
    for (const unit of SERVICES) run('systemctl', 'restart', `${unit}.service`);
    await settle(node);
    assert.deepEqual(pids(), before_);
    const restart = promisify(execFile)('systemctl', ['restart', 'cribus-gateway.service']);
    const refused: string[] = [];
    let over = false;
    const watch = restart.finally(() => {
      over = true;
    });
    while (!over) {
      // Each with a connection of its own: one that is open is cut at the restart.
      await connects('/run/cribus/cribus.sock').catch((error) => refused.push(String(error)));
      // What connects meanwhile waits in the socket's queue, which has an end.
      await systemClock.sleep(50);
    }
    await watch;
    assert.deepEqual(refused, []);
    await settle(node);
  });

  it('restarts a service that is killed', async () => {
    const main = () => Number(run('systemctl', 'show', '-P', 'MainPID', 'cribus-image-service'));
    const before_ = main();
    process.kill(before_, 'SIGKILL');
    await eventually('another process', async () => ![0, before_].includes(main()), 120_000);
    await settle(node);
  });
});

function connects(path: string): Promise<void> {
  return new Promise((resolve, reject) => {
    const socket = connect(path);
    socket.once('connect', () => {
      socket.destroy();
      resolve();
    });
    socket.once('error', reject);
  });
}
