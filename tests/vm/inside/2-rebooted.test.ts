// The same machine after a reboot with pods: what ran is gone, records say so, addresses are free, and
// pods come back once. At last the package is taken away, and nothing of it stays.

import assert from 'node:assert/strict';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import {
  ContainerState,
  ListContainersRequest,
  ListPodSandboxRequest,
  PodSandboxState,
  RemovePodSandboxRequest,
  StopPodSandboxRequest,
} from '@cribus/contracts/gen/cri/v1/api.ts';
import { exec, pull } from '@cribus/e2e/harness/pods.ts';
import { after, before, describe, it } from 'mocha';
import { bootId, type InstalledNode, openNode, run, STATE, startPod } from './installed-node.ts';

interface Left {
  readonly bootId: string;
  readonly pods: readonly { readonly podId: string; readonly ip: string }[];
}

describe('a machine that was rebooted with pods', () => {
  let node: InstalledNode;
  let left: Left;

  before(async () => {
    left = JSON.parse(readFileSync(join(STATE, 'left.json'), 'utf8'));
    node = await openNode();
  });
  after(async () => {
    await node?.close();
  });

  it('lists the pods of before as not ready, and their containers as exited', async () => {
    assert.notEqual(bootId(), left.bootId);
    const { items } = await node.cri.call('listPodSandbox', ListPodSandboxRequest.fromPartial({}));
    assert.deepEqual(items.map(({ id }) => id).sort(), left.pods.map(({ podId }) => podId).sort());
    for (const { state } of items) assert.equal(state, PodSandboxState.SANDBOX_NOTREADY);
    const { containers } = await node.cri.call(
      'listContainers',
      ListContainersRequest.fromPartial({}),
    );
    assert.equal(containers.length, left.pods.length);
    for (const { state } of containers) assert.equal(state, ContainerState.CONTAINER_EXITED);
  });

  it('frees their addresses, and runs pods again, once each', async () => {
    for (const { podId } of left.pods) {
      await node.cri.call(
        'stopPodSandbox',
        StopPodSandboxRequest.fromPartial({ podSandboxId: podId }),
      );
      await node.cri.call(
        'removePodSandbox',
        RemovePodSandboxRequest.fromPartial({ podSandboxId: podId }),
      );
    }
    const addresses = readdirSync('/var/lib/cni/networks/pods').filter((name) => /^\d/.test(name));
    assert.deepEqual(addresses, []);
    await pull(node.cri, node.registry.busybox);
    const pod = await startPod(node, 'runc', '/kubepods.slice/kubepods-podd1f0.slice');
    assert.notEqual(pod.ip, '');
    assert.equal((await exec(node.cri, pod.containerId, ['echo', 'back'])).stdout, 'back\n');
  });

  it('is left as it was when the package is purged', () => {
    run('dpkg', '--purge', 'cribus');
    for (const path of [
      '/usr/lib/cribus',
      '/usr/bin/cribus',
      '/etc/cribus',
      '/var/lib/cribus',
      '/var/log/cribus',
      '/run/cribus',
    ]) {
      assert.ok(!existsSync(path), path);
    }
    assert.equal(run('sh', '-c', 'ls /lib/systemd/system | grep cribus || true'), '');
    assert.doesNotMatch(run('ps', '-eo', 'args'), /conmon|usr\/lib\/cribus/);
    assert.doesNotMatch(readFileSync('/proc/self/mountinfo', 'utf8'), /cribus\/(run|state)/);
    assert.equal(run('sh', '-c', 'find /sys/fs/cgroup -name "*cribus-*.scope"'), '');
  });
});
