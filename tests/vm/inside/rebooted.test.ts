// The same machine after a reboot with pods: what ran is gone, records say so, addresses are free, and
// pods come back once.

import assert from 'node:assert/strict';
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import {
  ContainerState,
  ListContainersRequest,
  ListPodSandboxRequest,
  PodSandboxState,
} from '@cribus/contracts/gen/cri/v1/api.ts';
import { exec, pull } from '@cribus/e2e/harness/pods.ts';
import { after, before, describe, it } from 'mocha';
import {
  bootId,
  type InstalledNode,
  openNode,
  removePods,
  STATE,
  startPod,
} from './installed-node.ts';

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
    const list = ListContainersRequest.fromPartial({});
    const { containers } = await node.cri.call('listContainers', list);
    assert.equal(containers.length, left.pods.length);
    for (const { state } of containers) assert.equal(state, ContainerState.CONTAINER_EXITED);
  });

  it('frees their addresses, and runs pods again, once each', async () => {
    await removePods(node);
    const addresses = readdirSync('/var/lib/cni/networks/pods').filter((name) => /^\d/.test(name));
    assert.deepEqual(addresses, []);
    await pull(node.cri, node.registry.busybox);
    const pod = await startPod(node);
    assert.notEqual(pod.ip, '');
    assert.equal((await exec(node.cri, pod.containerId, ['echo', 'back'])).stdout, 'back\n');
    await removePods(node);
  });
});
