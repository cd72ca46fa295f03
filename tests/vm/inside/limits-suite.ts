// What a cgroup driver must do on cgroup v2, for either of the two: limits set and changed, out of
// memory told apart, figures counted, commands in the container's own cgroup, the host's mount of it left
// as it is, and nothing left behind.

import assert from 'node:assert/strict';
import { readFileSync, writeFileSync } from 'node:fs';
import {
  ContainerState,
  ContainerStatsRequest,
  type LinuxContainerResources,
  NamespaceMode,
  PodSandboxStatsRequest,
  RuntimeConfigRequest,
  UpdateContainerResourcesRequest,
} from '@cribus/contracts/gen/cri/v1/api.ts';
import { failureOf } from '@cribus/e2e/harness/image-calls.ts';
import { containerStatus, exec, shellContainer, startContainer } from '@cribus/e2e/harness/pods.ts';
import { eventually } from '@cribus/e2e/harness/stack.ts';
import { listMounts } from '@cribus/host/mounts.ts';
import { after, afterEach, before, describe, it } from 'mocha';
import {
  type CgroupDriver,
  cgroupOf,
  cgroupsOf,
  type InstalledNode,
  provideNode,
  removePods,
  run,
  startPod,
} from './installed-node.ts';

const MIB = 1024n * 1024n;
const PATIENCE_MS = 120_000;
/** Memory of a shell of its own, beside which the container's first process lives on. */
const HOG = 'x=a; while :; do x=$x$x$x$x; done';
/** Forty megabytes and what the shell has besides. */
const FILL = 'x=a; while [ ${#x} -lt 40000000 ]; do x=$x$x$x$x; done';
const BUSY = 'trap "exit 0" TERM; while :; do :; done';

type Resources = Parameters<typeof LinuxContainerResources.fromPartial>[0];

/** How the host has its cgroups mounted, with the options that hold for all that is below them. */
const hostCgroups = () =>
  listMounts().find((mount) => mount.mountPoint === '/sys/fs/cgroup')?.superOptions ?? '';

/** The weight that runc 1.1 and crun 1.8 make of shares (KEP-2254). */
const weightOf = (shares: bigint) => String(1n + ((shares - 2n) * 9999n) / 262_142n);

export function limitsSuite(driver: CgroupDriver): void {
  describe(`the ${driver} driver on cgroup v2`, () => {
    let node: InstalledNode;
    before(async () => {
      node = await provideNode(driver);
    });
    afterEach(() => removePods(node));
    after(async () => {
      await node?.close();
    });

    const limits = (containerId: string) => {
      const read = (file: string) =>
        readFileSync(`${cgroupOf(containerId)}/${file}`, 'utf8').trim();
      return {
        weight: read('cpu.weight'),
        cpu: read('cpu.max'),
        memory: read('memory.max'),
        pids: read('pids.max'),
      };
    };
    const start = (handler: string, resources: Resources, script?: string) =>
      startPod(node, {
        handler,
        podUid: `f00d${driver.length}`,
        container: { linux: { resources } },
        ...(script === undefined ? {} : { script }),
      });

    const exited = (containerId: string) =>
      eventually(
        'the end',
        async () => {
          const status = await containerStatus(node.cri, containerId);
          return status.state === ContainerState.CONTAINER_EXITED && status;
        },
        PATIENCE_MS,
      );

    it('is what a kubelet that asks is told', async () => {
      const { linux } = await node.cri.call('runtimeConfig', RuntimeConfigRequest.fromPartial({}));
      assert.equal(linux?.cgroupDriver, driver === 'systemd' ? 0 : 1);
    });

    for (const handler of ['runc', 'crun']) {
      it(`limits a container of ${handler}, changes its limits while it runs, and keeps them when systemd reloads`, async () => {
        const { containerId } = await start(handler, {
          cpuShares: 512n,
          cpuPeriod: 100_000n,
          cpuQuota: 50_000n,
          memoryLimitInBytes: 64n * MIB,
          unified: { 'pids.max': '30' },
        });
        assert.ok(cgroupOf(containerId).includes(node.cgroupParent(`f00d${driver.length}`)));
        assert.deepEqual(limits(containerId), {
          weight: weightOf(512n),
          cpu: '50000 100000',
          memory: String(64n * MIB),
          pids: '30',
        });
        const linux = { cpuShares: 256n, cpuQuota: 80_000n, memoryLimitInBytes: 96n * MIB };
        await node.cri.call(
          'updateContainerResources',
          UpdateContainerResourcesRequest.fromPartial({ containerId, linux }),
        );
        const changed = {
          weight: weightOf(256n),
          cpu: '80000 100000',
          memory: String(96n * MIB),
          pids: '30',
        };
        assert.deepEqual(limits(containerId), changed);
        run('systemctl', 'daemon-reload');
        assert.deepEqual(limits(containerId), changed);
        const { resources } = await containerStatus(node.cri, containerId);
        assert.deepEqual(
          [resources?.linux?.cpuQuota, resources?.linux?.memoryLimitInBytes],
          [80_000n, 96n * MIB],
        );
      });

      it(`refuses a memory limit below what a container of ${handler} uses, which lives on`, async () => {
        const script = `${FILL}; echo full > /state; while :; do sleep 1; done`;
        const { containerId } = await start(handler, { memoryLimitInBytes: 200n * MIB }, script);
        await eventually(
          'the memory is in use',
          async () => (await exec(node.cri, containerId, ['cat', '/state'])).exitCode === 0,
          PATIENCE_MS,
        );
        const before = limits(containerId);
        const linux = { memoryLimitInBytes: 8n * MIB, cpuQuota: 80_000n };
        const refused = node.cri.call(
          'updateContainerResources',
          UpdateContainerResourcesRequest.fromPartial({ containerId, linux }),
        );
        await failureOf(refused, { code: 'FAILED_PRECONDITION', message: /are in use/ });
        assert.deepEqual(limits(containerId), before);
        const { state, resources } = await containerStatus(node.cri, containerId);
        assert.deepEqual(
          [state, resources?.linux?.memoryLimitInBytes],
          [ContainerState.CONTAINER_RUNNING, 200n * MIB],
        );
      });

      it(`tells who was killed for memory under ${handler}`, async () => {
        const { containerId } = await start(handler, { memoryLimitInBytes: 32n * MIB }, HOG);
        const { reason, exitCode } = await exited(containerId);
        assert.deepEqual([reason, exitCode], ['OOMKilled', 137]);
      });

      it(`tells whom of a pod of ${handler} the kernel killed for the memory of the pod`, async () => {
        const quiet = await start(handler, {});
        const pod = `/sys/fs/cgroup${node.cgroupParent(`f00d${driver.length}`)}`;
        writeFileSync(`${pod}/memory.max`, String(60n * MIB));
        const hog = await startContainer(
          node.cri,
          quiet.podId,
          shellContainer(node.registry.busybox, HOG, { name: 'hog' }),
          quiet.config,
        );
        const killed = await exited(hog);
        assert.deepEqual([killed.exitCode, killed.reason], [137, 'OOMKilled']);
        const { containerId } = quiet;
        await node.cri.call('stopContainer', { containerId, timeout: 60n });
        const survivor = await containerStatus(node.cri, containerId);
        assert.deepEqual([survivor.exitCode, survivor.reason], [0, 'Completed']);
      });

      it(`counts what a container of ${handler} and its pod use, and holds its commands`, async () => {
        const pod = await start(handler, { memoryLimitInBytes: 64n * MIB }, BUSY);
        const { containerId, podId: podSandboxId } = pod;
        const { stats } = await eventually(
          'two readings',
          async () => {
            const request = ContainerStatsRequest.fromPartial({ containerId });
            const answer = await node.cri.call('containerStats', request);
            return (answer.stats?.cpu?.usageNanoCores?.value ?? 0n) > 0n && answer;
          },
          PATIENCE_MS,
        );
        const { memory } = stats ?? {};
        const free = memory?.availableBytes?.value ?? 0n;
        assert.equal(free + (memory?.workingSetBytes?.value ?? 0n), 64n * MIB);
        const used = stats?.cpu?.usageCoreNanoSeconds?.value ?? 0n;
        assert.ok(used > 0n);
        // The pod's figures are read on their own, so they may be somewhat older.
        await eventually(
          "the pod's reading",
          async () => {
            const request = PodSandboxStatsRequest.fromPartial({ podSandboxId });
            const ofPod = (await node.cri.call('podSandboxStats', request)).stats?.linux;
            return (ofPod?.cpu?.usageCoreNanoSeconds?.value ?? 0n) >= used;
          },
          PATIENCE_MS,
        );
        const said = await exec(node.cri, containerId, ['cat', '/proc/self/cgroup']);
        assert.equal(said.stdout, '0::/\n', said.stderr);
      });

      it(`shows a privileged container of ${handler} the host's cgroups, and leaves their options as they are`, async () => {
        // As systemd mounts it: whatever mounts its own without options, criu for one, takes them off.
        const asOfSystemd = 'remount,nsdelegate,memory_recursiveprot';
        run('mount', '-o', asOfSystemd, '/sys/fs/cgroup');
        const before = hostCgroups();
        assert.match(before, /nsdelegate/);
        assert.match(before, /memory_recursiveprot/);
        const { containerId } = await startPod(node, {
          handler,
          podUid: `f00d${driver.length}`,
          privileged: true,
          container: { linux: { securityContext: { privileged: true } } },
        });
        assert.equal(hostCgroups(), before);
        const script =
          'cd /sys/fs/cgroup && mkdir probe && rmdir probe && test -d system.slice && cat /proc/self/cgroup';
        const said = await exec(node.cri, containerId, ['sh', '-c', script]);
        assert.equal(said.exitCode, 0, said.stderr);
        assert.ok(said.stdout.includes(containerId), 'it has no cgroup namespace');
        await removePods(node);
        assert.equal(hostCgroups(), before);
      });

      it(`runs an init for the shared processes of a pod of ${handler}`, async () => {
        const { containerId } = await startPod(node, {
          handler,
          podUid: `f00d${driver.length}`,
          pid: NamespaceMode.POD,
          container: {
            linux: { securityContext: { namespaceOptions: { pid: NamespaceMode.POD } } },
          },
        });
        const said = await exec(node.cri, containerId, ['cat', '/proc/1/comm']);
        assert.equal(said.stdout, 'catatonit\n', said.stderr);
      });

      it(`leaves no cgroup and no unit of a pod of ${handler}`, async () => {
        const { containerId } = await start(handler, {});
        await removePods(node);
        assert.deepEqual(cgroupsOf(containerId), []);
        assert.equal(
          run('systemctl', 'list-units', '--all', '--plain', `*${containerId}*`).includes('.scope'),
          false,
        );
      });
    }
  });
}
