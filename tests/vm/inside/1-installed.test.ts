// The Debian package on a machine with systemd and cgroup v2: installed, used, restarted part by part,
// upgraded and downgraded with pods running. It leaves a pod behind for the reboot that follows.

import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import { connect } from 'node:net';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { ContainerState, ListContainersRequest } from '@cribus/contracts/gen/cri/v1/api.ts';
import { exec, pull, type RunningPod } from '@cribus/e2e/harness/pods.ts';
import { systemClock } from '@cribus/host/clock.ts';
import { after, before, describe, it } from 'mocha';
import {
  bootId,
  type InstalledNode,
  openNode,
  packageOf,
  pidsOf,
  run,
  STATE,
  settle,
  startPod,
} from './installed-node.ts';

const SERVICES = [
  'cribus-gateway',
  'cribus-image-service',
  'cribus-sandbox-manager',
  'cribus-runtime-runc',
  'cribus-runtime-gvisor',
];

/** As a kubelet with the systemd driver names a pod's slice. */
const SLICE = '/kubepods.slice/kubepods-podd1f0.slice';
const BRIDGE = JSON.stringify({
  cniVersion: '1.0.0',
  name: 'pods',
  plugins: [
    {
      type: 'bridge',
      bridge: 'cni0',
      isGateway: true,
      ipMasq: true,
      ipam: { type: 'host-local', ranges: [[{ subnet: '10.85.0.0/24' }]] },
    },
    { type: 'portmap', capabilities: { portMappings: true } },
  ],
});

describe('the package on a machine with systemd and cgroup v2', () => {
  let node: InstalledNode;
  let pods: readonly RunningPod[];

  before(async () => {
    // Before its first start, so that the package has to leave it alone.
    run('mkdir', '-p', '/etc/cribus');
    writeFileSync('/etc/cribus/cribus.toml', '[cgroups]\ndriver = "systemd"\n');
    run('mkdir', '-p', '/etc/cni/net.d');
    writeFileSync('/etc/cni/net.d/10-bridge.conflist', BRIDGE);
    run('dpkg', '--force-confold', '-i', packageOf('0.1.0'));
    node = await openNode();
    await pull(node.cri, node.registry.busybox);
  });
  const pids = () => pods.map(({ containerId }) => pidsOf(containerId));
  after(async () => {
    await node?.close();
  });

  it('starts every unit, and cribus status and crictl-like calls answer', async () => {
    for (const unit of [...SERVICES, 'cribus-nats', 'cribus-redis']) {
      assert.equal(run('systemctl', 'is-active', `${unit}.service`), 'active', unit);
    }
    assert.equal(run('systemctl', 'is-active', 'cribus-gateway.socket'), 'active');
    assert.match(run('cribus', 'status'), /^cri-gateway +running/m);
    assert.match(run('cribus', 'doctor'), /^ok +cgroups +v2 with .*; driver systemd$/m);
  });

  it('runs pods of runc and crun in scopes of the slice that the kubelet names', async () => {
    pods = [await startPod(node, 'runc', SLICE), await startPod(node, 'crun', SLICE)];
    for (const pod of pods) {
      const cgroup = (await exec(node.cri, pod.containerId, ['cat', '/proc/1/cgroup'])).stdout;
      assert.match(cgroup, /^0::\//);
      const unit = run(
        'systemctl',
        'list-units',
        '--plain',
        '--no-legend',
        `cribus-${pod.containerId}*`,
      );
      assert.match(unit, /\.scope +loaded active running/);
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

  it('restarts a service that is killed or hangs', async () => {
    const main = () => Number(run('systemctl', 'show', '-P', 'MainPID', 'cribus-image-service'));
    const before_ = main();
    process.kill(before_, 'SIGKILL');
    await settle(node);
    assert.notEqual(main(), before_);
  });

  it('keeps pods over an upgrade and a downgrade', async () => {
    const before_ = pids();
    for (const version of ['99.0.0', '0.1.0']) {
      run('dpkg', '--force-confold', '--force-downgrade', '-i', packageOf(version));
      await settle(node);
      assert.equal(run('dpkg-query', '-W', '-f=${Version}', 'cribus'), version);
      assert.deepEqual(pids(), before_);
      const { stdout } = await exec(node.cri, pods[0]?.containerId ?? '', ['echo', version]);
      assert.equal(stdout.trim(), version);
    }
    assert.match(readFileSync('/etc/cribus/cribus.toml', 'utf8'), /driver = "systemd"/);
  });

  it('leaves its pods to the reboot', async () => {
    const { containers } = await node.cri.call(
      'listContainers',
      ListContainersRequest.fromPartial({}),
    );
    assert.ok(containers.every(({ state }) => state === ContainerState.CONTAINER_RUNNING));
    const left = { bootId: bootId(), pods: pods.map(({ podId, ip }) => ({ podId, ip })) };
    writeFileSync(join(STATE, 'left.json'), JSON.stringify(left));
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
