// The second way of a kubelet to the figures of containers: cAdvisor inside it finds them by the names
// of cgroups, and asks at CRI-O's socket. Here its part is played.

import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { existsSync, rmSync } from 'node:fs';
import { writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import {
  NamespaceMode,
  RemoveContainerRequest,
  StopPodSandboxRequest,
} from '@cribus/contracts/gen/cri/v1/api.ts';
import { after, before, describe, it } from 'mocha';
import { playCadvisor, type Seen } from './harness/played-cadvisor.ts';
import {
  exec,
  pidOf,
  type RunningPod,
  runPod,
  shellContainer,
  startContainer,
} from './harness/pods.ts';
import { eventually } from './harness/stack.ts';
import { HOST_KERNEL_HANDLERS, stackSuite } from './harness/suite.ts';

const MIB = 1024 * 1024;

/** One place for a socket, which the stack makes the directories of. */
function place() {
  const base = join(tmpdir(), `cribus-e2e-crio-${randomUUID()}`);
  const socket = join(base, 'crio', 'crio.sock');
  return { base, socket, config: `[kubelet]\ncadvisor_socket = "${socket}"\n` };
}

/** A pod as the kubelet asks for it: below a cgroup of its own, with its labels. */
function kubeletPod(pid: NamespaceMode, network: NamespaceMode = NamespaceMode.POD) {
  const cgroupParent = `/kubepods-e2e-${randomUUID()}/besteffort/pod1`;
  return {
    labels: {
      'io.kubernetes.pod.name': 'web',
      'io.kubernetes.pod.namespace': 'shop',
      'io.kubernetes.pod.uid': 'u1',
    },
    linux: { cgroupParent, securityContext: { namespaceOptions: { pid, network } } },
  };
}

function seenAs(seen: ReadonlyMap<string, Seen>, id: string): Seen {
  const found = seen.get(id);
  assert.ok(found !== undefined, `${id} is not among ${[...seen.keys()]}`);
  return found;
}

describe("the kubelet's cAdvisor", () => {
  const { base, socket, config } = place();
  const cadvisor = playCadvisor(socket);
  const suite = stackSuite();
  const earlier = kubeletPod(NamespaceMode.CONTAINER);
  let old: RunningPod;
  before('a pod, and the key turned on under it', async () => {
    const { image, stack } = suite;
    old = await runPod(stack, { image, script: 'sleep 1000', pod: earlier });
    assert.equal((await stack.cribus('down')).code, 0);
    await writeFile(join(stack.root, 'etc', 'cribus.toml'), config);
    assert.equal((await stack.cribus('up', '--detach')).code, 0);
  });
  after(() => {
    assert.equal(existsSync(dirname(socket)), false, 'the socket goes with the stack');
    rmSync(base, { recursive: true, force: true });
  });
  const labels = { 'io.kubernetes.container.name': 'main', 'io.kubernetes.pod.name': 'web' };

  it('finds what is created once its socket is configured, while older containers of the same pod stay as they are', async () => {
    const { image, cri } = suite;
    const added = shellContainer(image, 'sleep 1000', { name: 'added' });
    const id = await startContainer(cri, old.podId, added, old.config);
    const seen = await cadvisor.look(earlier.linux.cgroupParent);
    assert.deepEqual([...seen.keys()], [id]);
    assert.equal((await exec(cri, old.containerId, ['true'])).exitCode, 0);
    const { containerId } = old;
    await cri.call('removeContainer', RemoveContainerRequest.fromPartial({ containerId }));
  });

  it('is told where the node stores its containers', async () => {
    assert.deepEqual(await cadvisor.info(), {
      storage_driver: 'overlay',
      storage_root: join(suite.stack.root, 'state'),
      storage_image: '',
    });
    const { status, text } = await cadvisor.ask('f'.repeat(64));
    assert.deepEqual([status, text], [404, `there is no container ${'f'.repeat(64)}`]);
  });

  for (const handler of HOST_KERNEL_HANDLERS) {
    it(`finds each container of ${handler} by its cgroup, with its name, labels and figures of its own`, async () => {
      const pod = kubeletPod(NamespaceMode.CONTAINER);
      const script =
        'dd if=/dev/zero of=/tmp/big bs=1M count=3; i=0; while [ $i -lt 50000 ]; do i=$((i+1)); done; touch /tmp/done; sleep 1000';
      const container = { labels, annotations: { 'io.kubernetes.container.restartCount': '2' } };
      const { image, stack, cri } = suite;
      const running = await runPod(stack, { image, script, handler, pod, container });
      const { containerId, podId } = running;
      await eventually(
        'the script is through',
        async () => (await exec(cri, containerId, ['test', '-e', '/tmp/done'])).exitCode === 0,
      );
      const seen = await cadvisor.look(pod.linux.cgroupParent);
      assert.deepEqual([...seen.keys()].sort(), [containerId, podId].sort());
      const { cgroup, info, cpuNs, memoryBytes, layerBytes } = seenAs(seen, containerId);
      assert.equal(cgroup, `${pod.linux.cgroupParent}/crio-${containerId}.scope`);
      assert.ok(cpuNs > 20_000_000n, `${cpuNs} ns`);
      assert.ok(memoryBytes > 100_000n, `${memoryBytes} bytes`);
      assert.ok(layerBytes >= 3 * MIB && layerBytes < 4 * MIB, `${layerBytes} bytes`);
      assert.equal(info.pid, await pidOf(cri, containerId));
      assert.equal(info.image, image);
      assert.equal(info.labels['io.kubernetes.container.name'], 'main');
      assert.equal(info.labels['io.kubernetes.pod.namespace'], 'default');
      assert.equal(info.annotations['io.kubernetes.container.restartCount'], '2');
      assert.ok(existsSync(info.log_path), info.log_path);
      assert.equal(info.ip_address, running.ip);
    });
  }

  it("finds a pod's network by a cgroup of the sandbox, with and without a process of its own, until the stop", async () => {
    const { image, stack, cri } = suite;
    for (const pid of [NamespaceMode.CONTAINER, NamespaceMode.POD]) {
      const pod = kubeletPod(pid);
      const parent = pod.linux.cgroupParent;
      const { podId, containerId } = await runPod(stack, { image, script: 'sleep 1000', pod });
      const before = seenAs(await cadvisor.look(parent), podId);
      assert.equal(before.info.labels['io.kubernetes.container.name'], 'POD');
      assert.equal(before.info.labels['io.kubernetes.pod.name'], 'web');
      assert.equal(before.cpuNs > 0n, pid === NamespaceMode.POD);
      const gateway =
        "ping -c 3 -i 0.1 -s 1000 $(ip route | sed -n 's/default via \\([^ ]*\\).*/\\1/p')";
      await exec(cri, containerId, ['sh', '-c', gateway]);
      const { receivedBytes = 0n } = seenAs(await cadvisor.look(parent), podId);
      const grown = receivedBytes - (before.receivedBytes ?? 0n);
      assert.ok(grown >= 3000n && grown < 20_000n, `${grown} bytes more`);
      await cri.call('stopPodSandbox', StopPodSandboxRequest.fromPartial({ podSandboxId: podId }));
      assert.equal((await cadvisor.look(parent)).has(podId), false);
    }
  });

  it("gets no traffic of the host for a pod in the host's network", async () => {
    const pod = kubeletPod(NamespaceMode.CONTAINER, NamespaceMode.NODE);
    const { image, stack } = suite;
    const { podId, containerId } = await runPod(stack, { image, script: 'sleep 1000', pod });
    const seen = await cadvisor.look(pod.linux.cgroupParent);
    assert.deepEqual([...seen.keys()], [containerId]);
    const { text } = await cadvisor.ask(podId);
    assert.equal((JSON.parse(text) as { pid: number }).pid, 0);
  });

  it('finds the Sentry of a gvisor pod with its network, and none of the empty cgroups inside', async () => {
    const pod = kubeletPod(NamespaceMode.CONTAINER);
    const { image, stack } = suite;
    const handler = 'gvisor';
    const { podId } = await runPod(stack, { image, script: 'sleep 1000', handler, pod });
    const seen = await cadvisor.look(pod.linux.cgroupParent);
    assert.deepEqual([...seen.keys()], [podId]);
    const { cpuNs, memoryBytes, receivedBytes } = seenAs(seen, podId);
    assert.ok(cpuNs > 10_000_000n, `${cpuNs} ns`);
    assert.ok(memoryBytes > 1_000_000n, `${memoryBytes} bytes`);
    assert.ok(receivedBytes !== undefined, 'the interface of the pod is seen');
  });
});
