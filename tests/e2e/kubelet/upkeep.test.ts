// What a kubelet asks for its node: when it starts, when a disk or a pod has to change its size, and for
// the figures that it gives out, beside pods of both handlers.

import assert from 'node:assert/strict';
import { buildImage, pushImage } from '@cribus/cli/tour/image.ts';
import { GRPC_CODE } from '@cribus/contracts/failure.ts';
import {
  CgroupDriver,
  ImageFsInfoRequest,
  ImageStatusRequest,
  type LinuxPodSandboxStats,
  ListContainerStatsRequest,
  ListMetricDescriptorsRequest,
  ListPodSandboxMetricsRequest,
  ListPodSandboxStatsRequest,
  Mount,
} from '@cribus/contracts/gen/cri/v1/api.ts';
import { detectCgroups } from '@cribus/host/cgroups.ts';
import { describe, it } from 'mocha';
import { hasCode } from '../harness/cri.ts';
import { busyboxLayer } from '../harness/images.ts';
import { pull } from '../harness/pods.ts';
import { eventually } from '../harness/stack.ts';
import { HANDLERS } from '../harness/suite.ts';
import { collectImages, unusedImages, usedBytes } from './image-manager.ts';
import { kubeletSuite } from './kubelet-suite.ts';
import { podCgroup } from './manifest.ts';
import { resizePod } from './resize.ts';
import { startUp } from './start-up.ts';

const WAIT = "trap 'exit 0' TERM; while :; do sleep 0.1; done";
const MIB = 1024 * 1024;

type Figures = Pick<LinuxPodSandboxStats, 'cpu' | 'memory'> & Partial<LinuxPodSandboxStats>;

/** An image of its own id whose layers every other has too, but for some MiB. */
function imageNamed(what: string) {
  const data = Buffer.alloc(2 * MIB, what);
  const own = [{ kind: 'file', path: 'own', mode: 0o644, data } as const];
  const config = { Cmd: ['/bin/sh'], Env: ['PATH=/bin'], WorkingDir: '/', Labels: { what } };
  return buildImage({ layers: [busyboxLayer(), own], config, compression: 'none' });
}

const PINNED = imageNamed('pinned');

describe("a node's upkeep by its kubelet", () => {
  const node = kubeletSuite({
    config: `[images]\npinned = ["${PINNED.config.digest}"]\n`,
  });

  it('starts with Version, ImageFsInfo, RuntimeConfig three times, Version, Status and the lists, and is told the same at each of its starts, beside running pods too', async () => {
    const { kubelet, suite } = node;
    const { client } = kubelet;
    const first = await startUp(client, '10.244.1.0/24');
    const { linux } = first.configs[0] ?? {};
    assert.equal(linux?.cgroupDriver, CgroupDriver.CGROUPFS, 'that of the stack');
    assert.deepEqual(first.configs, Array(3).fill(first.configs[0]));
    assert.deepEqual(
      first.conditions?.map(({ type, status }) => [type, status]),
      [
        ['RuntimeReady', true],
        ['NetworkReady', true],
      ],
    );
    assert.deepEqual(
      first.runtimeHandlers.map(({ name, features }) => [name, features !== undefined]),
      ['', ...HANDLERS].map((name) => [name, true]),
    );
    assert.equal(first.features?.supplementalGroupsPolicy, true);
    assert.deepEqual(first.images[0], first.images[1]);
    const pods = node.addToEach(() => ({
      name: 'beside',
      containers: [{ name: 'main', image: suite.image, script: WAIT }],
    }));
    for (const { pod } of pods) await kubelet.untilRunning(pod);
    kubelet.forget();
    const second = await startUp(client, '10.244.1.0/24');
    assert.equal(second.containers.length, pods.length);
    assert.equal(second.items.length, pods.length);
    const { containers: _, items: __, ...same } = second;
    assert.deepEqual({ ...first, ...same }, first);
    client.listsByStreams = true;
    const streamed = await startUp(client, '10.244.1.0/24');
    assert.partialDeepStrictEqual(second, streamed);
    assert.ok(client.listsByStreams, 'all streams of lists are there');
    client.listsByStreams = false;
    await kubelet.until('the restarted kubelet knows them', () =>
      pods.every(({ pod }) => kubelet.shown(pod, 'main').restartCount === 0),
    );
    // As every five seconds, of which the node's status is made.
    const { conditions, features, runtimeHandlers } = first;
    for (let count = 0; count < 12; count += 1) {
      const { status, ...answer } = await client.ask('status', { verbose: false });
      assert.partialDeepStrictEqual(
        { conditions: status?.conditions, ...answer },
        { conditions, features, runtimeHandlers },
      );
    }
  });

  it('collects the images that no container names by image_id and none mounts, not those that are pinned, and never one in use', async () => {
    const { kubelet, suite, cri } = node;
    const { client } = kubelet;
    const { registry } = suite;
    const ids: Record<string, string> = {};
    const names: Record<string, string> = {};
    for (const what of ['runs', 'ended', 'mounted', 'idle', 'pinned']) {
      const image = what === 'pinned' ? PINNED : imageNamed(what);
      const repository = `gc/${what}`;
      const signal = AbortSignal.timeout(30_000);
      await pushImage(image, ['1', '2'], { registry: registry.url, repository, signal });
      names[what] = `${registry.host}/${repository}:1`;
      ids[what] = await pull(cri, names[what]);
    }
    await pull(cri, `${registry.host}/gc/idle:2`);
    const volume = Mount.fromPartial({
      containerPath: '/model',
      readonly: true,
      image: { image: ids['mounted'] ?? '' },
    });
    const pods = node.addToEach(() => ({
      name: 'images',
      restartPolicy: 'Never',
      containers: [
        { name: 'runs', image: names['runs'] ?? '', script: WAIT },
        { name: 'ended', image: names['ended'] ?? '', script: 'exit 0' },
        { name: 'mounts', image: suite.image, script: WAIT, mounts: [volume] },
      ],
    }));
    await kubelet.until('they run', () =>
      pods.every(
        ({ pod }) =>
          kubelet.shown(pod, 'mounts').state === 'running' &&
          kubelet.shown(pod, 'ended').state === 'terminated',
      ),
    );
    assert.deepEqual(await unusedImages(client), [ids['idle']]);
    const before = await eventually('the use of all is counted', async () => {
      const bytes = await usedBytes(client);
      return bytes > 10n * BigInt(MIB) && bytes;
    });
    await collectImages(client);
    await eventually('what was freed is counted', async () => {
      return before - (await usedBytes(client)) >= 2n * BigInt(MIB);
    });
    const isThere = async (what: string) => {
      const request = ImageStatusRequest.fromPartial({ image: { image: ids[what] ?? '' } });
      return (await client.ask('imageStatus', request)).image !== undefined;
    };
    assert.equal(await isThere('idle'), false);
    for (const what of ['runs', 'ended', 'mounted', 'pinned']) assert.ok(await isThere(what), what);
    assert.deepEqual(await unusedImages(client), []);
    await Promise.all(pods.map(({ pod }) => kubelet.terminate(pod)));
    await collectImages(client);
    for (const what of ['runs', 'ended', 'mounted']) assert.equal(await isThere(what), false);
    assert.ok(await isThere('pinned'), 'for as long as it is configured');
    await pull(cri, suite.image);
  });

  it('resizes a pod in place, up and down, by cgroups and calls in their order, and reads the new resources back; under gVisor the pod grows and its container goes on as it was', async () => {
    const { kubelet, suite, paths } = node;
    const { client } = kubelet;
    const small = { cpuMilli: 200, memoryBytes: 192 * MIB };
    const large = { cpuMilli: 400, memoryBytes: 256 * MIB };
    const pods = node.addToEach(() => ({
      name: 'resized',
      containers: [{ name: 'main', image: suite.image, limits: small, script: WAIT }],
    }));
    for (const { pod } of pods) await kubelet.untilRunning(pod);
    const cgroups = detectCgroups();
    for (const { pod, handler } of pods) {
      const containerId = kubelet.containerOf(pod, 'main').id;
      const cgroup = podCgroup(paths, pod);
      const limitsOf = (path: string) => {
        const { memoryLimitBytes, details } = cgroups.usage(path, { details: true });
        return [memoryLimitBytes, details?.cpuQuotaUs];
      };
      const applied = async () => {
        const { status } = await client.ask('containerStatus', { containerId, verbose: false });
        const { memoryLimitInBytes, cpuQuota } = status?.resources?.linux ?? {};
        return [memoryLimitInBytes, cpuQuota];
      };
      const inKernel = ({ cpuMilli, memoryBytes }: typeof small) => [
        BigInt(memoryBytes),
        BigInt(cpuMilli) * 100n,
      ];
      assert.deepEqual(await applied(), inKernel(small));
      const up = resizePod(kubelet, pod, { from: small, to: large });
      if (handler === 'gvisor') {
        // So the kubelet shows the resize as one that failed, and asks again at later syncs.
        await assert.rejects(up, (error) => hasCode(error, GRPC_CODE.UNIMPLEMENTED));
        assert.equal(limitsOf(cgroup)[0], inKernel(large)[0]);
        assert.deepEqual(await applied(), inKernel(small));
      } else {
        await up;
        for (const path of [cgroup, `${cgroup}/${containerId}`]) {
          assert.deepEqual(limitsOf(path), inKernel(large), path);
        }
        assert.deepEqual(await applied(), inKernel(large));
        await resizePod(kubelet, pod, { from: large, to: small });
        assert.deepEqual(limitsOf(`${cgroup}/${containerId}`), inKernel(small));
        assert.deepEqual(await applied(), inKernel(small));
      }
      await kubelet.relist(pod.uid);
      assert.partialDeepStrictEqual(kubelet.shown(pod, 'main'), {
        state: 'running',
        restartCount: 0,
      });
      assert.equal(kubelet.containerOf(pod, 'main').id, containerId);
    }
  });

  it('gives out figures from CRI alone: descriptors once, then statistics and metrics whose time goes on and whose counters never fall', async () => {
    const { kubelet, suite } = node;
    const { client } = kubelet;
    const pods = node.addToEach(() => ({
      name: 'measured',
      containers: ['one', 'two'].map((name) => ({ name, image: suite.image, script: WAIT })),
    }));
    for (const { pod } of pods) await kubelet.untilRunning(pod);
    const { descriptors } = await client.ask(
      'listMetricDescriptors',
      ListMetricDescriptorsRequest.fromPartial({}),
    );
    const labelKeys = new Map(descriptors.map((one) => [one.name, one.labelKeys]));
    /** What /stats/summary is made of, by pod and container. */
    const summary = async () => {
      const { stats } = await client.ask(
        'listPodSandboxStats',
        ListPodSandboxStatsRequest.fromPartial({ filter: {} }),
      );
      return new Map(
        stats.flatMap(({ attributes, linux }): (readonly [string, Figures])[] => {
          const pod = attributes?.metadata?.uid ?? '';
          const own = linux?.containers.map((one): readonly [string, Figures] => [
            `${pod}/${one.attributes?.metadata?.name}`,
            one,
          ]);
          return linux === undefined ? [] : [[pod, linux] as const, ...(own ?? [])];
        }),
      );
    };
    /** What /metrics/cadvisor is made of; Prometheus refuses a scrape with a series that is twice there. */
    const scrape = async () => {
      const request = ListPodSandboxMetricsRequest.fromPartial({});
      const { podMetrics } = await client.ask('listPodSandboxMetrics', request);
      const series = new Map<string, { value: bigint; timestamp: bigint }>();
      for (const { metrics, containerMetrics } of podMetrics) {
        for (const one of [...metrics, ...containerMetrics.flatMap((each) => each.metrics)]) {
          assert.equal(one.labelValues.length, labelKeys.get(one.name)?.length, one.name);
          const key = [one.name, ...one.labelValues].join(' ');
          assert.ok(!series.has(key), `${key} is there twice`);
          series.set(key, { value: one.value?.value ?? 0n, timestamp: one.timestamp });
        }
      }
      return series;
    };
    const wanted = pods.flatMap(({ pod }) => [pod.uid, `${pod.uid}/one`, `${pod.uid}/two`]);
    const cpuOf = (stats: Awaited<ReturnType<typeof summary>>, key: string) => {
      const { timestamp = 0n, usageCoreNanoSeconds, usageNanoCores } = stats.get(key)?.cpu ?? {};
      return { timestamp, used: usageCoreNanoSeconds?.value ?? -1n, rate: usageNanoCores?.value };
    };
    const first = await eventually('figures of all', async () => {
      const stats = await summary();
      return wanted.every((key) => cpuOf(stats, key).rate !== undefined) && stats;
    });
    const firstSeries = await scrape();
    assert.deepEqual([...first.keys()].sort(), [...wanted].sort());
    for (const key of wanted) {
      assert.ok((first.get(key)?.memory?.workingSetBytes?.value ?? 0n) > 0n, key);
    }
    for (const { pod } of pods) {
      assert.ok(first.get(pod.uid)?.network?.defaultInterface !== undefined);
    }
    client.listsByStreams = true;
    const second = await eventually('a later time everywhere', async () => {
      const stats = await summary();
      return (
        wanted.every((key) => cpuOf(stats, key).timestamp > cpuOf(first, key).timestamp) && stats
      );
    });
    for (const key of wanted) assert.ok(cpuOf(second, key).used >= cpuOf(first, key).used, key);
    const usage = [...firstSeries].filter(([key]) =>
      key.startsWith('container_cpu_usage_seconds_total '),
    );
    assert.ok(usage.length >= pods.length * 2, `${usage.length} containers have metrics`);
    await eventually('later metrics', async () => {
      const later = await scrape();
      for (const [key, { value, timestamp }] of usage) {
        const now = later.get(key);
        assert.ok(now !== undefined && now.value >= value, `${key}: ${now?.value} after ${value}`);
        assert.ok(now.timestamp > timestamp, key);
      }
      return true;
    });
    // Every ten seconds, for evictions, also of a kubelet that has the other figures from cAdvisor.
    const { stats } = await client.ask(
      'listContainerStats',
      ListContainerStatsRequest.fromPartial({ filter: {} }),
    );
    const info = await client.ask('imageFsInfo', ImageFsInfoRequest.fromPartial({}));
    const filesystems = [...info.imageFilesystems, ...info.containerFilesystems];
    const mountpoints = filesystems.map(({ fsId }) => fsId?.mountpoint);
    assert.equal(stats.length, pods.length * 2);
    for (const { writableLayer } of stats) {
      assert.ok((writableLayer?.timestamp ?? 0n) > 0n);
      assert.ok(mountpoints.includes(writableLayer?.fsId?.mountpoint));
    }
    assert.ok(client.listsByStreams, 'all streams of figures are there');
    client.listsByStreams = false;
  });
});
