// Statistics: figures that the kernel and the Sentry count, never made up.

import assert from 'node:assert/strict';
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { GRPC_CODE } from '@cribus/contracts/failure.ts';
import {
  type ContainerStats,
  ContainerStatsRequest,
  ImageFsInfoRequest,
  ListContainerStatsRequest,
  ListPodSandboxMetricsRequest,
  ListPodSandboxStatsRequest,
  type NetworkInterfaceUsage,
  PodSandboxStatsRequest,
  StopContainerRequest,
} from '@cribus/contracts/gen/cri/v1/api.ts';
import { describe, it } from 'mocha';
import { hasCode } from './harness/cri.ts';
import { exec, runPod, shellContainer, startContainer } from './harness/pods.ts';
import { eventually } from './harness/stack.ts';
import { HANDLERS, HOST_KERNEL_HANDLERS, stackSuite } from './harness/suite.ts';

const SLEEP = "trap 'exit 0' TERM; while :; do sleep 0.05; done";
const BUSY = "trap 'exit 0' TERM; while :; do :; done";
const MIB = 1024n * 1024n;
/** A fiftieth of a processor: what a loop gets on a host with much else to do. */
const BUSY_NANO_CORES = 20_000_000n;
/** A busy machine reads out of a Sentry seldom, and a rate needs two readings. */
const RATE_OF_A_SENTRY_MS = 120_000;

const refusedWith = (code: number) => (error: unknown) => hasCode(error, code);

describe('statistics', () => {
  const suite = stackSuite();
  const statsOf = async (containerId: string): Promise<ContainerStats> => {
    const request = ContainerStatsRequest.fromPartial({ containerId });
    const { stats } = await suite.cri.call('containerStats', request);
    assert.ok(stats !== undefined);
    return stats;
  };
  /** A machine that is busy may take longer for the first than an ask waits. */
  const firstStatsOf = (containerId: string): Promise<ContainerStats> =>
    eventually('the first figures', async () => {
      const stats = await statsOf(containerId);
      return stats.cpu === undefined ? undefined : stats;
    });
  const listed = async (filter: object = {}): Promise<readonly ContainerStats[]> => {
    const request = ListContainerStatsRequest.fromPartial({ filter });
    return (await suite.cri.call('listContainerStats', request)).stats;
  };
  const podStatsOf = async (podSandboxId: string) => {
    const request = PodSandboxStatsRequest.fromPartial({ podSandboxId });
    const { stats } = await suite.cri.call('podSandboxStats', request);
    assert.ok(stats?.linux !== undefined);
    return stats.linux;
  };
  const metrics = async () =>
    (await suite.cri.call('listPodSandboxMetrics', ListPodSandboxMetricsRequest.fromPartial({})))
      .podMetrics;
  for (const handler of HOST_KERNEL_HANDLERS) {
    it(`${handler}: a busy container uses a processor, and one that sleeps next to nothing`, async () => {
      const { stack, image } = suite;
      const [busy, idle] = await Promise.all(
        [BUSY, 'sleep 1000'].map((script) => runPod(stack, { image, script, handler })),
      );
      assert.ok(busy !== undefined && idle !== undefined);
      const first = await statsOf(busy.containerId);
      assert.ok((first.cpu?.timestamp ?? 0n) > 0n);
      assert.ok((first.cpu?.usageCoreNanoSeconds?.value ?? 0n) > 0n);
      const second = await eventually('two readings', async () => {
        const stats = await statsOf(busy.containerId);
        return stats.cpu?.usageNanoCores === undefined ? undefined : stats;
      });
      assert.ok((second.cpu?.timestamp ?? 0n) > (first.cpu?.timestamp ?? 0n), 'time advances');
      const rate = second.cpu?.usageNanoCores?.value ?? 0n;
      const sleeping = (await statsOf(idle.containerId)).cpu?.usageNanoCores?.value;
      assert.ok(sleeping !== undefined && rate > BUSY_NANO_CORES, `${rate}`);
      assert.ok(rate > 5n * sleeping, `${rate} and ${sleeping}`);
    });

    it(`${handler}: memory that is filled is in the working set, and the kernel's limit tells what is left`, async () => {
      const { stack, cri, image } = suite;
      const limit = 256n * MIB;
      const pod = await runPod(stack, {
        image,
        script: SLEEP,
        handler,
        container: { linux: { resources: { memoryLimitInBytes: limit } } },
      });
      const before = await statsOf(pod.containerId);
      await exec(cri, pod.containerId, [
        'dd',
        'if=/dev/zero',
        'of=/dev/shm/x',
        'bs=1M',
        'count=48',
      ]);
      const after = await eventually('forty MiB more', async () => {
        const stats = await statsOf(pod.containerId);
        const grown =
          (stats.memory?.workingSetBytes?.value ?? 0n) -
          (before.memory?.workingSetBytes?.value ?? 0n);
        return grown >= 40n * MIB ? stats : undefined;
      });
      const { memory, swap } = after;
      assert.ok((memory?.usageBytes?.value ?? 0n) >= (memory?.workingSetBytes?.value ?? 1n));
      assert.equal(
        (memory?.availableBytes?.value ?? 0n) + (memory?.workingSetBytes?.value ?? 0n),
        limit,
      );
      assert.ok((memory?.rssBytes?.value ?? 0n) > 0n);
      assert.ok((memory?.pageFaults?.value ?? 0n) > (before.memory?.pageFaults?.value ?? 0n));
      assert.equal(swap?.swapUsageBytes?.value, 0n, 'this host counts swap and has none');
    });
  }

  for (const handler of HANDLERS) {
    it(`${handler}: a file in the root filesystem raises the writable layer's bytes and inodes`, async () => {
      const { stack, cri, image } = suite;
      const pod = await runPod(stack, { image, script: SLEEP, handler });
      const first = await eventually('a first look at the layer', async () => {
        const { writableLayer } = await statsOf(pod.containerId);
        return writableLayer;
      });
      const write =
        'mkdir /new && dd if=/dev/zero of=/new/file bs=1M count=5 && touch /new/a /new/b';
      assert.equal((await exec(cri, pod.containerId, ['sh', '-c', write])).exitCode, 0);
      const second = await eventually('a second look at the layer', async () => {
        const { writableLayer } = await statsOf(pod.containerId);
        const bytes = (writableLayer?.usedBytes?.value ?? 0n) - (first.usedBytes?.value ?? 0n);
        return bytes >= 5n * MIB ? writableLayer : undefined;
      });
      const more = (second.inodesUsed?.value ?? 0n) - (first.inodesUsed?.value ?? 0n);
      assert.ok(more >= 4n, `${more} inodes more`);
      assert.ok(second.timestamp > first.timestamp);
      const info = await cri.call('imageFsInfo', ImageFsInfoRequest.fromPartial({}));
      const [filesystem] = info.containerFilesystems;
      assert.equal(second.fsId?.mountpoint, filesystem?.fsId?.mountpoint);
    });

    it(`${handler}: traffic raises the counters of the pod's interface, and lo is none`, async () => {
      const { stack, cri, image } = suite;
      const [server, client] = await Promise.all([
        runPod(stack, { image, script: 'exec httpd -f -p 8080 -h /bin', handler }),
        runPod(stack, { image, script: SLEEP, handler: 'runc' }),
      ]);
      assert.ok(server !== undefined && client !== undefined);
      const before = (await podStatsOf(server.podId)).network?.defaultInterface;
      assert.equal(before?.name, 'eth0');
      const fetch = `printf 'GET /busybox HTTP/1.0\\r\\n\\r\\n' | nc ${server.ip} 8080 | wc -c`;
      const got = await eventually('the file', async () => {
        const { stdout } = await exec(cri, client.containerId, ['sh', '-c', fetch]);
        return Number(stdout) > 100_000 ? BigInt(stdout.trim()) : undefined;
      });
      const counted = (stats: NetworkInterfaceUsage | undefined) => ({
        rx: stats?.rxBytes?.value ?? 0n,
        tx: stats?.txBytes?.value ?? 0n,
      });
      const network = await eventually('counted traffic', async () => {
        const now = (await podStatsOf(server.podId)).network;
        const { tx, rx } = counted(now?.defaultInterface);
        const { tx: txBefore, rx: rxBefore } = counted(before);
        return tx - txBefore >= got && rx > rxBefore ? now : undefined;
      });
      assert.deepEqual(
        network.interfaces.map(({ name }) => name),
        ['eth0'],
      );
      assert.deepEqual(network.interfaces[0]?.rxErrors, { value: 0n });
    });
  }

  it('a pod has the use of its cgroup, its processes, and each of its containers', async () => {
    const { stack, cri, image } = suite;
    const labels = { app: 'one' };
    const pod = await runPod(stack, {
      image,
      script: BUSY,
      pod: {
        labels,
        linux: {
          cgroupParent: `/statistics-${process.pid}`,
          securityContext: { namespaceOptions: { pid: 1 } },
        },
      },
    });
    // As a kubelet does: a limit of the pod is none of a container that has none of its own.
    const [v1, v2] = ['memory/statistics', 'statistics'].map(
      (path) => `/sys/fs/cgroup/${path}-${process.pid}/memory`,
    );
    const limit = existsSync(`${v2}.max`) ? `${v2}.max` : `${v1}.limit_in_bytes`;
    writeFileSync(limit, String(256n * MIB));
    await startContainer(
      cri,
      pod.podId,
      shellContainer(image, 'sleep 1000 & sleep 1000; true', { name: 'second' }),
      pod.config,
    );
    const stats = await eventually('two readings of the pod', async () => {
      const linux = await podStatsOf(pod.podId);
      const complete = linux.containers.every(({ cpu }) => cpu?.usageNanoCores !== undefined);
      return linux.cpu?.usageNanoCores !== undefined && complete ? linux : undefined;
    });
    assert.ok((stats.cpu?.usageNanoCores?.value ?? 0n) > BUSY_NANO_CORES);
    assert.ok((stats.memory?.workingSetBytes?.value ?? 0n) > 0n);
    const { availableBytes, workingSetBytes } = stats.memory ?? {};
    assert.equal((availableBytes?.value ?? 0n) + (workingSetBytes?.value ?? 0n), 256n * MIB);
    assert.ok(stats.containers.every(({ memory }) => memory?.availableBytes === undefined));
    assert.equal(stats.process?.processCount?.value, 4n);
    assert.deepEqual(stats.containers.map(({ attributes }) => attributes?.metadata?.name).sort(), [
      'main',
      'second',
    ]);
    const sum = stats.containers
      .map(({ cpu }) => cpu?.usageCoreNanoSeconds?.value ?? 0n)
      .reduce((a, b) => a + b);
    assert.ok((stats.cpu?.usageCoreNanoSeconds?.value ?? 0n) * 2n > sum);
    const list = async (filter: object) => {
      const request = ListPodSandboxStatsRequest.fromPartial({ filter });
      const answer = await cri.call('listPodSandboxStats', request);
      return answer.stats.map(({ attributes }) => attributes?.id);
    };
    assert.deepEqual(await list({ labelSelector: labels }), [pod.podId]);
    assert.deepEqual(await list({ labelSelector: { app: 'two' } }), []);
    assert.deepEqual(await list({ id: pod.podId.slice(0, 13) }), [pod.podId]);
  });

  it('pods without a cgroup of their own, and in the network of the host, fail no list', async () => {
    const { stack, cri, image } = suite;
    const bare = await runPod(stack, { image, script: BUSY });
    const host = await runPod(stack, {
      image,
      script: 'sleep 1000',
      pod: { linux: { securityContext: { namespaceOptions: { network: 2, pid: 1 } } } },
    });
    const all = await eventually('both', async () => {
      const request = ListPodSandboxStatsRequest.fromPartial({});
      const { stats } = await cri.call('listPodSandboxStats', request);
      const byId = new Map(stats.map((one) => [one.attributes?.id, one.linux]));
      const known = byId.get(bare.podId)?.cpu?.usageNanoCores !== undefined;
      return known ? byId : undefined;
    });
    const summed = all.get(bare.podId);
    assert.ok((summed?.cpu?.usageNanoCores?.value ?? 0n) > BUSY_NANO_CORES, 'of its containers');
    assert.equal(summed?.process?.processCount?.value, 1n);
    assert.equal(all.get(host.podId)?.network, undefined);
    assert.ok((all.get(host.podId)?.memory?.usageBytes?.value ?? 0n) > 0n);
  });

  it('lists by id, sandbox and labels; an exited container has its layer only; an unknown one is NOT_FOUND', async () => {
    const { stack, cri, image } = suite;
    const labels = { tier: 'front' };
    const pod = await runPod(stack, { image, script: SLEEP, container: { labels } });
    const other = await runPod(stack, { image, script: 'echo text > /file; exit 3' });
    const ids = async (filter: object) =>
      (await listed(filter)).map(({ attributes }) => attributes?.id).sort();
    assert.deepEqual(await ids({}), [pod.containerId, other.containerId].sort());
    assert.deepEqual(await ids({ id: pod.containerId }), [pod.containerId]);
    assert.deepEqual(await ids({ id: pod.containerId.slice(0, 12) }), [pod.containerId]);
    assert.deepEqual(await ids({ podSandboxId: other.podId }), [other.containerId]);
    assert.deepEqual(await ids({ labelSelector: labels }), [pod.containerId]);
    assert.deepEqual(await ids({ labelSelector: { tier: 'back' } }), []);
    assert.deepEqual(await ids({ id: pod.containerId, podSandboxId: other.podId }), []);
    const ended = await eventually('the layer of the exited one', async () => {
      const stats = await statsOf(other.containerId);
      return stats.cpu === undefined && stats.writableLayer !== undefined ? stats : undefined;
    });
    assert.deepEqual([ended.memory, ended.swap, ended.io], [undefined, undefined, undefined]);
    assert.deepEqual((await listed({ id: pod.containerId }))[0]?.attributes?.labels, labels);
    await assert.rejects(statsOf('absent'), refusedWith(GRPC_CODE.NOT_FOUND));
    await assert.rejects(podStatsOf('absent'), refusedWith(GRPC_CODE.NOT_FOUND));
    await cri.call(
      'stopContainer',
      StopContainerRequest.fromPartial({ containerId: pod.containerId, timeout: 0n }),
    );
    assert.equal((await statsOf(pod.containerId)).cpu, undefined);
  });

  it('runc: pressure is what the kernel says of the container, where it accounts it', async () => {
    const { stack, image } = suite;
    const pod = await runPod(stack, { image, script: BUSY });
    const stats = await firstStatsOf(pod.containerId);
    const line = readFileSync(`/proc/${await pidOf(pod.containerId)}/cgroup`, 'utf8')
      .split('\n')
      .find((one) => one.startsWith('0::'));
    const unified = /^\S+ (\S+) cgroup2 /m.exec(readFileSync('/proc/mounts', 'utf8'))?.[1];
    const own = line === undefined || unified === undefined ? '' : `${unified}${line.slice(3)}`;
    const known = (() => {
      try {
        return /some avg10=.* total=(\d+)/.exec(readFileSync(`${own}/cpu.pressure`, 'utf8'))?.[1];
      } catch {
        return undefined;
      }
    })();
    assert.equal(stats.cpu?.psi?.Some !== undefined, known !== undefined);
    if (known === undefined) return;
    const told = stats.cpu?.psi?.Some?.Total ?? 0n;
    // In nanoseconds; the kernel's number, of a moment later, is in microseconds.
    assert.ok(told > 0n && told <= BigInt(known) * 1000n);
    assert.ok(stats.memory?.psi !== undefined && stats.io?.psi !== undefined);
  });

  it('gVisor: figures come from the Sentry, are never zero, and a busy container is told from one that sleeps', async () => {
    const { stack, cri, image } = suite;
    const pod = await runPod(stack, { image, script: BUSY, handler: 'gvisor' });
    const first = await firstStatsOf(pod.containerId);
    assert.ok((first.cpu?.usageCoreNanoSeconds?.value ?? 0n) > 0n, 'the first that are told');
    assert.ok((first.memory?.workingSetBytes?.value ?? 0n) > 0n);
    const idle = await startContainer(
      cri,
      pod.podId,
      shellContainer(image, 'sleep 1000', { name: 'idle' }),
      pod.config,
    );
    const rates = await eventually(
      'two readings of each',
      async () => {
        const [busy, quiet] = [await statsOf(pod.containerId), await statsOf(idle)];
        for (const { cpu, memory } of [busy, quiet]) {
          assert.notEqual(cpu?.usageCoreNanoSeconds?.value, 0n);
          assert.notEqual(memory?.usageBytes?.value, 0n);
        }
        const values = [busy, quiet].map(({ cpu }) => cpu?.usageNanoCores?.value);
        return values.includes(undefined) ? undefined : values;
      },
      RATE_OF_A_SENTRY_MS,
    );
    assert.ok((rates[0] ?? 0n) > BUSY_NANO_CORES, `${rates[0]}`);
    assert.ok((rates[0] ?? 0n) > 2n * (rates[1] ?? 0n), `${rates}`);
    const whole = await podStatsOf(pod.podId);
    assert.ok((whole.memory?.workingSetBytes?.value ?? 0n) > 5n * MIB, 'the Sentry counts too');
    assert.ok((whole.process?.processCount?.value ?? 0n) > 0n);
    const [of] = (await metrics()).filter((one) => one.podSandboxId === pod.podId);
    const names = of?.containerMetrics[0]?.metrics.map(({ name }) => name) ?? [];
    for (const name of ['container_cpu_usage_seconds_total', 'container_memory_usage_bytes']) {
      assert.ok(names.includes(name), name);
    }
  });

  it('two lists a second apart are of two samples, for every handler, as crictl stats needs it', async () => {
    const { stack, image } = suite;
    await Promise.all(HANDLERS.map((handler) => runPod(stack, { image, script: SLEEP, handler })));
    const timesOf = async () =>
      new Map(
        (await listed()).map(({ attributes, cpu }) => [attributes?.id ?? '', cpu?.timestamp ?? 0n]),
      );
    let before = await timesOf();
    for (let round = 0; round < 3; round += 1) {
      await new Promise((resolve) => setTimeout(resolve, 1_000));
      const now = await timesOf();
      for (const [id, at] of now) assert.ok(at > (before.get(id) ?? 0n) && at > 0n, id);
      assert.equal(now.size, HANDLERS.length);
      before = now;
    }
  });

  it('a worker that is away costs only its own containers their figures', async () => {
    const { stack, image } = suite;
    const [near, away] = await Promise.all(
      ['runc', 'gvisor'].map((handler) => runPod(stack, { image, script: SLEEP, handler })),
    );
    assert.ok(near !== undefined && away !== undefined);
    await firstStatsOf(away.containerId);
    const worker = await stack.pidOf('runtime-gvisor');
    process.kill(worker, 'SIGSTOP');
    try {
      const stats = await eventually(
        'a list without figures of the one that is away',
        async () => {
          const byId = new Map((await listed()).map((one) => [one.attributes?.id, one]));
          assert.equal(byId.size, 2, 'both are listed all the time');
          return byId.get(away.containerId)?.cpu === undefined ? byId : undefined;
        },
        30_000,
      );
      assert.ok((stats.get(near.containerId)?.cpu?.usageCoreNanoSeconds?.value ?? 0n) > 0n);
      assert.equal(stats.get(away.containerId)?.memory, undefined);
      await eventually('a refusal that names the handler', async () => {
        await assert.rejects(statsOf(away.containerId), refusedWith(GRPC_CODE.UNAVAILABLE));
        return true;
      });
    } finally {
      process.kill(worker, 'SIGCONT');
    }
    await eventually('figures again', async () => (await statsOf(away.containerId)).cpu);
  });

  async function pidOf(containerId: string): Promise<number> {
    const { info } = await suite.cri.call('containerStatus', { containerId, verbose: true });
    return (JSON.parse(info['info'] ?? '') as { pid: number }).pid;
  }
});
