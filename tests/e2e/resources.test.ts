// Limits of containers: set at their creation, changed while they run, and what the kernel does with
// who exceeds them.

import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import {
  ContainerState,
  CreateContainerRequest,
  type LinuxContainerResources,
  NamespaceMode,
  PodSandboxStatusRequest,
  UpdateContainerResourcesRequest,
  UpdatePodSandboxResourcesRequest,
} from '@cribus/contracts/gen/cri/v1/api.ts';
import { describe, it } from 'mocha';
import { failureOf } from './harness/image-calls.ts';
import { containerStatus, exec, runPod, shellContainer, startContainer } from './harness/pods.ts';
import { eventually } from './harness/stack.ts';
import { HOST_KERNEL_HANDLERS, stackSuite } from './harness/suite.ts';

const MIB = 1024n * 1024n;
const SLEEP = 'exec sleep 1000';
const HOG = 'x=a; while :; do x=$x$x$x$x; done';
const IS_V1 = existsSync('/sys/fs/cgroup/memory');

/** The files of this host's cgroup version that show a limit, as [controller, v1, v2]. */
const FILES = {
  shares: ['cpu', 'cpu.shares', 'cpu.weight'],
  quota: ['cpu', 'cpu.cfs_quota_us', 'cpu.max'],
  period: ['cpu', 'cpu.cfs_period_us', 'cpu.max'],
  memory: ['memory', 'memory.limit_in_bytes', 'memory.max'],
  swap: ['memory', 'memory.memsw.limit_in_bytes', 'memory.swap.max'],
  cpus: ['cpuset', 'cpuset.cpus', 'cpuset.cpus'],
  pids: ['pids', 'pids.max', 'pids.max'],
} as const;

type PartialResources = Parameters<typeof LinuxContainerResources.fromPartial>[0];

describe('resources', () => {
  const suite = stackSuite();
  const parent = () => `/e2e-resources-${randomUUID().slice(0, 8)}`;

  const limit = (cgroup: string, name: keyof typeof FILES): string => {
    const [controller, v1, v2] = FILES[name];
    const file = IS_V1 ? `/${controller}${cgroup}/${v1}` : `${cgroup}/${v2}`;
    return readFileSync(`/sys/fs/cgroup${file}`, 'utf8').trim();
  };
  const limits = (cgroup: string) =>
    Object.fromEntries(
      (Object.keys(FILES) as (keyof typeof FILES)[]).map((name) => [name, limit(cgroup, name)]),
    );
  const update = (containerId: string, linux: PartialResources) =>
    suite.cri.call(
      'updateContainerResources',
      UpdateContainerResourcesRequest.fromPartial({ containerId, linux }),
    );
  const applied = async (containerId: string) =>
    (await containerStatus(suite.cri, containerId)).resources?.linux;

  /** A running pod whose container has these limits, and the container's cgroup. */
  async function limited(handler: string, resources: PartialResources) {
    const cgroupParent = parent();
    const pod = await runPod(suite.stack, {
      image: suite.image,
      script: SLEEP,
      handler,
      pod: { linux: { cgroupParent, securityContext: { namespaceOptions: { pid: 1 } } } },
      container: { linux: { resources } },
    });
    return { ...pod, cgroup: `${cgroupParent}/${pod.containerId}` };
  }

  /** As a kubelet does with the cgroup of a pod. */
  const limitPod = (cgroup: string, bytes: bigint) => {
    const directory = IS_V1 ? `/sys/fs/cgroup/memory${cgroup}` : `/sys/fs/cgroup${cgroup}`;
    const file = IS_V1 ? 'memory.limit_in_bytes' : 'memory.max';
    writeFileSync(join(directory, file), String(bytes));
  };
  const exited = (containerId: string) =>
    eventually(
      'the end',
      async () => {
        const status = await containerStatus(suite.cri, containerId);
        return status.state === ContainerState.CONTAINER_EXITED && status;
      },
      30_000,
    );

  for (const handler of HOST_KERNEL_HANDLERS) {
    it(`changes processor and memory limits of a running container, up and down, under ${handler}`, async () => {
      const { containerId, cgroup } = await limited(handler, {
        cpuShares: 512n,
        cpuPeriod: 100_000n,
        cpuQuota: 50_000n,
        memoryLimitInBytes: 64n * MIB,
        memorySwapLimitInBytes: 64n * MIB,
        oomScoreAdj: 900n,
        unified: { 'pids.max': '30' },
      });
      assert.equal(limit(cgroup, 'pids'), '30');
      const pid = async () =>
        Number((await exec(suite.cri, containerId, ['cat', '/proc/1/oom_score_adj'])).stdout);
      assert.equal(await pid(), 900);
      for (const [quota, mib] of [
        [20_000n, 200n],
        [80_000n, 48n],
      ] as const) {
        const bytes = mib * MIB;
        await update(containerId, {
          cpuShares: quota / 10n,
          cpuQuota: quota,
          memoryLimitInBytes: bytes,
          memorySwapLimitInBytes: bytes,
          cpusetCpus: '0',
        });
        const now = limits(cgroup);
        assert.equal(now['memory'], String(bytes));
        assert.equal(now['cpus'], '0');
        if (IS_V1) {
          assert.deepEqual(
            [now['shares'], now['quota'], now['period'], now['swap']],
            [quota / 10n, quota, 100_000n, bytes].map(String),
          );
        }
        const shown = await applied(containerId);
        assert.deepEqual(
          [shown?.cpuQuota, shown?.cpuPeriod, shown?.memoryLimitInBytes, shown?.cpusetCpus],
          [quota, 100_000n, bytes, '0'],
        );
      }
      await update(containerId, { unified: { 'pids.max': '40' } });
      assert.equal(limit(cgroup, 'pids'), '40');
      await update(containerId, { oomScoreAdj: 950n });
      assert.equal(await pid(), 950);
      const before = limits(cgroup);
      await update(containerId, {});
      assert.deepEqual(limits(cgroup), before, 'what is unspecified stays');
    });

    it(`changes nothing at all when one of the limits is refused under ${handler}`, async () => {
      const { containerId, cgroup } = await limited(handler, {
        cpuPeriod: 100_000n,
        cpuQuota: 50_000n,
        memoryLimitInBytes: 64n * MIB,
      });
      const [before, shown] = [limits(cgroup), await applied(containerId)];
      const valid = { cpuQuota: 70_000n, cpuShares: 99n, memoryLimitInBytes: 96n * MIB };
      const refused: [PartialResources, 'INVALID_ARGUMENT', RegExp][] = [
        // Refused by the kernel, after others were written.
        [{ cpusetCpus: '4000' }, 'INVALID_ARGUMENT', /cpuset/],
        [{ cpuPeriod: 1n }, 'INVALID_ARGUMENT', /cpu/],
        // Refused by us, before anything is.
        [{ cpuShares: -1n }, 'INVALID_ARGUMENT', /cpu_shares.*negative/],
        [{ memorySwapLimitInBytes: 1n * MIB }, 'INVALID_ARGUMENT', /swap.*less than/],
        [
          { hugepageLimits: [{ pageSize: 'huge', limit: 1n }] },
          'INVALID_ARGUMENT',
          /hugepage_limits/,
        ],
      ];
      for (const [wrong, code, message] of refused) {
        await failureOf(update(containerId, { ...valid, ...wrong }), { code, message });
        assert.deepEqual(limits(cgroup), before);
        assert.deepEqual(await applied(containerId), shown);
      }
    });

    it(`refuses a memory limit below what is in use, and the container lives on, under ${handler}`, async () => {
      const { stack, cri, image } = suite;
      const resources = { memoryLimitInBytes: 200n * MIB };
      const pod = await runPod(stack, {
        image,
        script: 'x=a; while [ ${#x} -lt 40000000 ]; do x=$x$x$x$x; done; echo full; read never',
        handler,
        container: { stdin: true, linux: { resources } },
      });
      await eventually('the memory is in use', async () =>
        readFileSync(pod.logPath, 'utf8').includes('full'),
      );
      await failureOf(update(pod.containerId, { memoryLimitInBytes: 8n * MIB }), {
        code: 'FAILED_PRECONDITION',
        message: new RegExp(pod.containerId),
      });
      const { state, resources: shown } = await containerStatus(cri, pod.containerId);
      assert.deepEqual(
        [state, shown?.linux?.memoryLimitInBytes],
        [ContainerState.CONTAINER_RUNNING, 200n * MIB],
      );
    });

    it(`limits a created container before its start, and refuses an exited one, under ${handler}`, async () => {
      const { cri, image } = suite;
      const { podId, config, cgroup } = await limited(handler, {});
      const { containerId } = await cri.call(
        'createContainer',
        CreateContainerRequest.fromPartial({
          podSandboxId: podId,
          config: shellContainer(image, SLEEP, { name: 'created' }),
          sandboxConfig: config,
        }),
      );
      const own = `${cgroup.slice(0, cgroup.lastIndexOf('/'))}/${containerId}`;
      await update(containerId, { memoryLimitInBytes: 80n * MIB, cpuQuota: 30_000n });
      assert.equal(limit(own, 'memory'), String(80n * MIB));
      await cri.call('startContainer', { containerId });
      assert.equal(limit(own, 'memory'), String(80n * MIB));
      assert.equal((await applied(containerId))?.cpuQuota, 30_000n);
      await cri.call('stopContainer', { containerId, timeout: 0n });
      await failureOf(update(containerId, { cpuQuota: 40_000n }), {
        code: 'FAILED_PRECONDITION',
        message: /exited/i,
      });
      await failureOf(update('d'.repeat(64), { cpuQuota: 40_000n }), {
        code: 'NOT_FOUND',
        message: /d{64}/,
      });
    });
  }

  it('keeps the limits of a container over a restart of its worker', async () => {
    const { stack } = suite;
    const { containerId, cgroup } = await limited('runc', { memoryLimitInBytes: 64n * MIB });
    await update(containerId, { memoryLimitInBytes: 90n * MIB });
    process.kill(await stack.pidOf('runtime-runc'), 'SIGKILL');
    await eventually('the worker is back', async () => {
      await update(containerId, { cpuShares: 300n });
      return true;
    });
    const shown = await applied(containerId);
    assert.deepEqual([shown?.memoryLimitInBytes, shown?.cpuShares], [90n * MIB, 300n]);
    assert.equal(limit(cgroup, 'memory'), String(90n * MIB));
  });

  it('says that gVisor limits no single container, with UNIMPLEMENTED', async () => {
    const { stack, image } = suite;
    const { containerId } = await runPod(stack, { image, script: SLEEP, handler: 'gvisor' });
    await failureOf(update(containerId, { memoryLimitInBytes: 64n * MIB }), {
      code: 'UNIMPLEMENTED',
      message: /only the cgroup of the pod/,
    });
  });

  it('says OOMKilled of whom the kernel killed for the memory of the pod, and of nobody else in it', async () => {
    const { stack, cri, image } = suite;
    const cgroupParent = parent();
    const linux = {
      cgroupParent,
      securityContext: { namespaceOptions: { pid: NamespaceMode.CONTAINER } },
    };
    const quiet = await runPod(stack, {
      image,
      script: "trap 'exit 0' TERM; while :; do sleep 0.05; done",
      pod: { linux },
    });
    limitPod(cgroupParent, 60n * MIB);
    const hog = await startContainer(
      cri,
      quiet.podId,
      shellContainer(image, HOG, { name: 'hog' }),
      quiet.config,
    );
    const killed = await exited(hog);
    assert.deepEqual([killed.exitCode, killed.reason], [137, 'OOMKilled']);
    await cri.call('stopContainer', { containerId: quiet.containerId, timeout: 10n });
    const survivor = await containerStatus(cri, quiet.containerId);
    assert.deepEqual([survivor.exitCode, survivor.reason], [0, 'Completed']);
  });

  it('says OOMKilled with 137 of a container whose first process outlives a killed child and ends well', async () => {
    const { stack, image } = suite;
    const { containerId } = await runPod(stack, {
      image,
      script: `sh -c '${HOG}'; sleep 0.2; exit 0`,
      container: { linux: { resources: { memoryLimitInBytes: 32n * MIB } } },
    });
    const { exitCode, reason } = await exited(containerId);
    assert.deepEqual([exitCode, reason], [137, 'OOMKilled']);
  });

  it('says OOMKilled of every container of a gVisor pod whose Sentry is killed for the memory of the pod', async () => {
    const { stack, cri, image } = suite;
    const cgroupParent = parent();
    const linux = {
      cgroupParent,
      securityContext: { namespaceOptions: { pid: NamespaceMode.CONTAINER } },
    };
    const pod = await runPod(stack, { image, script: SLEEP, handler: 'gvisor', pod: { linux } });
    limitPod(cgroupParent, 120n * MIB);
    const hog = await startContainer(
      cri,
      pod.podId,
      shellContainer(image, HOG, { name: 'hog' }),
      pod.config,
    );
    for (const containerId of [hog, pod.containerId]) {
      const { exitCode, reason } = await exited(containerId);
      assert.deepEqual([exitCode, reason], [137, 'OOMKilled']);
    }
  });

  it('resizes a pod in the order and with the fields of a kubelet', async () => {
    const { stack, cri, image } = suite;
    const cgroupParent = parent();
    const linux = {
      cgroupParent,
      securityContext: { namespaceOptions: { pid: NamespaceMode.CONTAINER } },
    };
    const resources = (quota: bigint, mib: bigint, oomScoreAdj: bigint) => ({
      cpuPeriod: 100_000n,
      cpuQuota: quota,
      cpuShares: quota / 196n,
      memoryLimitInBytes: mib * MIB,
      memorySwapLimitInBytes: mib * MIB,
      hugepageLimits: [{ pageSize: '2MB' }, { pageSize: '1GB' }],
      oomScoreAdj,
    });
    const { podId, containerId } = await runPod(stack, {
      image,
      script: SLEEP,
      pod: { linux },
      container: { linux: { resources: resources(20_000n, 64n, 998n) } },
    });
    const { memoryLimitInBytes, ...cpu } = resources(40_000n, 96n, 0n);
    await cri.call(
      'updatePodSandboxResources',
      UpdatePodSandboxResourcesRequest.fromPartial({
        podSandboxId: podId,
        overhead: {},
        resources: { memoryLimitInBytes, cpuQuota: cpu.cpuQuota, cpuPeriod: cpu.cpuPeriod },
      }),
    );
    limitPod(cgroupParent, memoryLimitInBytes);
    await update(containerId, resources(40_000n, 96n, 997n));
    assert.equal(limit(`${cgroupParent}/${containerId}`, 'memory'), String(96n * MIB));
    const score = await exec(cri, containerId, ['cat', '/proc/1/oom_score_adj']);
    assert.equal(score.stdout, '997\n');
    assert.partialDeepStrictEqual(await applied(containerId), {
      cpuQuota: 40_000n,
      cpuShares: 204n,
      memoryLimitInBytes: 96n * MIB,
      oomScoreAdj: 997n,
    });
  });

  it('takes the resources of a pod for its record and leaves its cgroup to the kubelet', async () => {
    const { cri } = suite;
    const { podId, cgroup } = await limited('runc', {});
    const own = cgroup.slice(0, cgroup.lastIndexOf('/'));
    const before = limits(own);
    await cri.call(
      'updatePodSandboxResources',
      UpdatePodSandboxResourcesRequest.fromPartial({
        podSandboxId: podId,
        resources: { memoryLimitInBytes: 300n * MIB },
        overhead: { cpuShares: 7n },
      }),
    );
    assert.deepEqual(limits(own), before);
    const { info } = await cri.call(
      'podSandboxStatus',
      PodSandboxStatusRequest.fromPartial({ podSandboxId: podId, verbose: true }),
    );
    const { linux } = (JSON.parse(info['info'] ?? '{}') as { config: { linux: object } }).config;
    assert.partialDeepStrictEqual(linux, {
      resources: { memory_limit_in_bytes: Number(300n * MIB) },
      overhead: { cpu_shares: 7 },
    });
    await failureOf(
      cri.call(
        'updatePodSandboxResources',
        UpdatePodSandboxResourcesRequest.fromPartial({ podSandboxId: 'f'.repeat(64) }),
      ),
      { code: 'NOT_FOUND', message: /f{64}/ },
    );
  });
});
