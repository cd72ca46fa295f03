// The life of a pod in the calls of a kubelet, in its order: how it is made, found again, stopped,
// removed and collected, and how its logs are rotated meanwhile. Pods of both handlers live side by side.

import assert from 'node:assert/strict';
import { existsSync, globSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { gunzipSync } from 'node:zlib';
import {
  ContainerState,
  CreateContainerRequest,
  ImageStatusRequest,
  ListContainersRequest,
  ListPodSandboxRequest,
  PodSandboxState,
  type RunPodSandboxRequest,
} from '@cribus/contracts/gen/cri/v1/api.ts';
import { describe, it } from 'mocha';
import { hasCode, type Method } from '../harness/cri.ts';
import { eventually } from '../harness/stack.ts';
import { unlessGone } from './client-checks.ts';
import { kubeletSuite } from './kubelet-suite.ts';
import { rotateLog, rotateLogs } from './log-manager.ts';
import { containerConfig, type PodManifest, sandboxConfig } from './manifest.ts';
import { POD_UID } from './played-kubelet.ts';
import { killPod } from './pod-ends.ts';

const GRPC_DEADLINE_EXCEEDED = 4;
const GRPC_FAILED_PRECONDITION = 9;
/** The first byte of a log that the manager has compressed. */
const GZIP = 0x1f;
const WAIT = "trap 'exit 0' TERM; while :; do sleep 0.1; done";
const STUBBORN = "trap 'echo term >> /v/terms' TERM; touch /v/up; while :; do sleep 0.1; done";
const FLOOD = [
  'i=0; while [ ! -e /v/stop ]; do n=$((i+50));',
  'while [ $i -lt $n ]; do echo line $i; i=$((i+1)); done; sleep 0.02; done',
  'echo the end; trap "exit 0" TERM; while :; do sleep 0.1; done',
].join('\n');

describe('the life of a pod', () => {
  const node = kubeletSuite();

  const listed = async ({ uid }: PodManifest) => {
    const { client } = node.kubelet;
    const filter = { labelSelector: { [POD_UID]: uid } };
    const { items } = await client.ask(
      'listPodSandbox',
      ListPodSandboxRequest.fromPartial({ filter }),
    );
    const { containers } = await client.ask(
      'listContainers',
      ListContainersRequest.fromPartial({ filter }),
    );
    return { items, containers };
  };
  /** What was asked since then of what the pod is made of, in order. */
  const askedOf = (ids: ReadonlySet<string>, since: number) =>
    node.kubelet.client.asked
      .slice(since)
      .filter(({ request }) => Object.values(request).some((value) => ids.has(String(value))));

  it('begins with RunPodSandbox, PodSandboxStatus, ImageStatus, PullImage, CreateContainer and StartContainer, and each answer has what was asked, verbatim', async () => {
    const { kubelet, suite } = node;
    const { client } = kubelet;
    const since = client.asked.length;
    const pods = node.addToEach(() => ({
      name: 'begins',
      containers: [
        { name: 'pulled', image: suite.image, imagePullPolicy: 'Always', script: WAIT },
        { name: 'present', image: suite.image, script: WAIT },
      ],
    }));
    await kubelet.until('all run', () =>
      pods.every(({ pod }) => kubelet.shown(pod, 'present').state === 'running'),
    );
    for (const { pod } of pods) {
      const { items, containers } = await listed(pod);
      const asked = client.asked.slice(since);
      const [run, ...again] = asked
        .filter(({ method }) => method === 'runPodSandbox')
        .map(({ request }) => request as RunPodSandboxRequest)
        .filter(({ config }) => config?.metadata?.uid === pod.uid);
      assert.ok(run !== undefined && again.length === 0);
      const [sandbox, ...others] = items;
      assert.ok(sandbox !== undefined && others.length === 0);
      const wanted = { labels: run.config?.labels, annotations: run.config?.annotations };
      assert.partialDeepStrictEqual(sandbox, { ...wanted, metadata: run.config?.metadata });
      assert.equal(sandbox.runtimeHandler, pod.handler);
      const { status } = await client.ask('podSandboxStatus', {
        podSandboxId: sandbox.id,
        verbose: false,
      });
      assert.partialDeepStrictEqual(status, { ...wanted, createdAt: sandbox.createdAt });
      assert.deepEqual(
        status?.linux?.namespaces?.options,
        run.config?.linux?.securityContext?.namespaceOptions,
      );
      const image = (
        await client.ask(
          'imageStatus',
          ImageStatusRequest.fromPartial({ image: { image: suite.image } }),
        )
      ).image;
      const creations = asked.filter(
        ({ method, request }) =>
          method === 'createContainer' &&
          (request as CreateContainerRequest).podSandboxId === sandbox.id,
      );
      for (const { request } of creations) {
        const { config, sandboxConfig } = request as CreateContainerRequest;
        const name = config?.metadata?.name ?? '';
        const answer = kubelet.containerOf(pod, name);
        const item = containers.find(({ id }) => id === answer.id);
        for (const shown of [answer, item]) {
          const { labels, annotations, metadata } = config ?? {};
          assert.partialDeepStrictEqual(shown, { labels, annotations, metadata });
          assert.equal(shown?.createdAt, answer.createdAt);
          assert.ok(image?.repoDigests.includes(shown?.imageRef ?? ''));
          assert.equal(shown?.imageId, image?.id, 'by which images in use are told from others');
        }
        assert.equal(
          answer.logPath,
          join(sandboxConfig?.logDirectory ?? '', config?.logPath ?? ''),
        );
        const hostPaths = answer.mounts.map(({ hostPath }) => hostPath);
        assert.deepEqual(
          hostPaths,
          config?.mounts.map(({ hostPath }) => hostPath),
        );
      }
      const ids = new Set([sandbox.id, ...containers.map(({ id }) => id)]);
      const made = askedOf(ids, since).map(({ method }) => method);
      const steps: Method[] = ['podSandboxStatus', 'createContainer', 'startContainer'];
      const first = made.filter((one, index) => made.indexOf(one) === index);
      assert.deepEqual(
        first.filter((one) => steps.includes(one)),
        steps,
      );
    }
  });

  it('goes on with the next attempt where a kubelet died between CreateContainer and StartContainer, in the same sandbox', async () => {
    const { kubelet, suite, paths } = node;
    const { client } = kubelet;
    const main = { name: 'main', image: suite.image, script: WAIT };
    const second = { ...main, name: 'second' };
    const pods = node.addToEach(() => ({ name: 'half', containers: [main] }));
    for (const { pod } of pods) {
      await kubelet.untilRunning(pod);
      const [sandbox] = kubelet.statusOf(pod).sandboxes;
      const imageId = suite.imageId;
      const { containerId } = await client.ask(
        'createContainer',
        CreateContainerRequest.fromPartial({
          podSandboxId: sandbox?.id ?? '',
          config: containerConfig(paths, pod, { container: second, restartCount: 0, imageId }),
          sandboxConfig: sandboxConfig(paths, pod, 0),
        }),
      );
      Object.assign(pod, { containers: [...pod.containers, second] });
      kubelet.forget();
      await kubelet.untilRunning(pod);
      assert.equal(kubelet.shown(pod, 'second').restartCount, 1);
      const { sandboxes, containers } = kubelet.statusOf(pod);
      assert.deepEqual(
        sandboxes.map(({ id }) => id),
        [sandbox?.id],
      );
      const left = containers.find(({ id }) => id === containerId);
      assert.deepEqual([left?.state, left?.startedAt], [ContainerState.CONTAINER_CREATED, 0n]);
      assert.equal(kubelet.shown(pod, 'main').restartCount, 0);
    }
  });

  it('keeps what has ended in every list until it is removed, and ends with its containers in parallel, its sandbox, and a minute later with both calls again', async () => {
    const { kubelet, suite } = node;
    const { client } = kubelet;
    const { image } = suite;
    const pods = node.addToEach(() => ({
      name: 'ends',
      restartPolicy: 'Never',
      terminationGracePeriodS: 0,
      containers: [
        { name: 'polite', image, script: "trap 'exit 6' TERM; while :; do sleep 0.1; done" },
        { name: 'stubborn', image, script: STUBBORN },
        { name: 'deaf', image, script: STUBBORN },
        { name: 'blind', image, script: STUBBORN },
        { name: 'done', image, script: 'exit 5' },
      ],
    }));
    await kubelet.until('all run', () =>
      pods.every(({ pod }) => pod.containers.every(({ name }) => hasBegun(pod, name))),
    );
    const since = client.asked.length;
    await Promise.all(
      pods.map(async ({ pod }) => {
        const { sandboxes, containers } = kubelet.statusOf(pod);
        const began = performance.now();
        await killPod(kubelet, pod, kubelet.statusOf(pod));
        const tookMs = performance.now() - began;
        assert.ok(tookMs >= 1_900 && tookMs < 5_900, `three times 2 s at once took ${tookMs} ms`);
        await kubelet.relist(pod.uid);
        const ends = pod.containers.map(({ name }) => kubelet.containerOf(pod, name));
        assert.deepEqual(
          ends.map(({ exitCode, state }) => [exitCode, state]),
          [6, 137, 137, 137, 5].map((code) => [code, ContainerState.CONTAINER_EXITED]),
        );
        const dead = await listed(pod);
        assert.equal(dead.containers.length, containers.length, 'each is a tombstone');
        await kubelet.terminate(pod);
        const [sandbox] = sandboxes;
        assert.ok(sandbox !== undefined);
        const stopped = await listed(pod);
        assert.deepEqual(
          [stopped.items.map(({ state }) => state), stopped.containers],
          [[PodSandboxState.SANDBOX_NOTREADY], []],
        );
        const podSandboxId = sandbox.id;
        for (const { id: containerId } of containers) {
          // As a kubelet whose first answers were lost.
          await client.ask('stopContainer', { containerId, timeout: 2n });
          await client.ask('removeContainer', { containerId });
        }
        const ids = new Set([podSandboxId, ...containers.map(({ id }) => id)]);
        const steps = ['stopContainer', 'stopPodSandbox', 'removeContainer'];
        const asked = askedOf(ids, since).filter(({ method }) => steps.includes(method));
        assert.deepEqual(
          asked.slice(0, 11).map(({ method }) => method),
          // The first StopPodSandbox is that of the sync, the second the one of the deletion.
          [
            ...Array<string>(4).fill('stopContainer'),
            ...Array<string>(2).fill('stopPodSandbox'),
            ...Array<string>(5).fill('removeContainer'),
          ],
        );
        for (const { request } of asked.slice(0, 4)) {
          assert.equal((request as { timeout: bigint }).timeout, 2n);
        }
      }),
    );
    const sandboxIds = pods.map(({ pod }) => kubelet.statusOf(pod).sandboxes[0]?.id ?? '');
    const later = client.asked.length;
    await kubelet.collectGarbage();
    for (const podSandboxId of sandboxIds) {
      const collected = askedOf(new Set([podSandboxId]), later)
        .map(({ method }) => method)
        .filter((method) => method !== 'podSandboxStatus');
      assert.deepEqual(collected, ['stopPodSandbox', 'removePodSandbox']);
      const status = client.ask('podSandboxStatus', { podSandboxId, verbose: false });
      assert.equal(await unlessGone(status), undefined);
      await client.ask('stopPodSandbox', { podSandboxId });
      await client.ask('removePodSandbox', { podSandboxId });
    }
    for (const { pod } of pods) assert.deepEqual(await listed(pod), { items: [], containers: [] });
  });

  it('joins each StopContainer that is asked again to the one that goes on, and answers none before the container is dead', async () => {
    const { kubelet, suite, cri } = node;
    const pods = node.addToEach(() => ({
      name: 'slow',
      containers: [{ name: 'main', image: suite.image, script: STUBBORN }],
    }));
    await kubelet.until('they run', () => pods.every(({ volume }) => existsSync(`${volume}/up`)));
    await Promise.all(
      pods.map(async ({ pod, volume }) => {
        const containerId = kubelet.containerOf(pod, 'main').id;
        const stop = { containerId, timeout: 3n };
        const began = performance.now();
        for (let tries = 0; tries < 3; tries += 1) {
          await assert.rejects(cri.call('stopContainer', stop, { timeoutMs: 700 }), (error) =>
            hasCode(error, GRPC_DEADLINE_EXCEEDED),
          );
        }
        const { status } = await cri.call('containerStatus', { containerId, verbose: false });
        assert.equal(status?.state, ContainerState.CONTAINER_RUNNING);
        await kubelet.client.ask('stopContainer', stop);
        const tookMs = performance.now() - began;
        assert.ok(tookMs >= 2_900 && tookMs < 4_900, `the grace period of 3 s took ${tookMs} ms`);
        await kubelet.relist(pod.uid);
        const { exitCode, state } = kubelet.containerOf(pod, 'main');
        assert.deepEqual([exitCode, state], [137, ContainerState.CONTAINER_EXITED]);
        assert.equal(readFileSync(join(volume, 'terms'), 'utf8'), 'term\n', 'one signal in all');
      }),
    );
  });

  it('has its logs rotated by rename and reopen without losing a line, made again where somebody deleted one, and left as they were where a reopen fails', async () => {
    const { kubelet, suite } = node;
    const { client } = kubelet;
    const { image } = suite;
    const pods = node.addToEach(() => ({
      name: 'logs',
      restartPolicy: 'Never',
      containers: [
        { name: 'flood', image, script: FLOOD },
        {
          name: 'quiet',
          image,
          script: `while [ ! -e /v/stop ]; do sleep 0.1; done; echo again; ${WAIT}`,
        },
        { name: 'done', image, script: 'echo last words' },
      ],
    }));
    const logOf = (pod: PodManifest, name: string) => kubelet.containerOf(pod, name).logPath;
    await kubelet.until('all run', () =>
      pods.every(({ pod }) => pod.containers.every(({ name }) => hasBegun(pod, name))),
    );
    const policy = { bytesMax: 8 * 1024, filesMax: 10 };
    for (const { pod } of pods) rmSync(logOf(pod, 'quiet'));
    const floods = pods.map(({ pod }) => logOf(pod, 'flood'));
    for (let round = 0; round < 4; round += 1) {
      await eventually('enough is written', async () =>
        floods.every((log) => readFileSync(log).length >= policy.bytesMax),
      );
      assert.deepEqual([...(await rotateLogs(client, policy))], []);
      assert.deepEqual(
        floods.map((log) => globSync(`${log}.*`).length),
        floods.map(() => round + 1),
      );
    }
    for (const { pod, volume } of pods) {
      writeFileSync(join(volume, 'stop'), '');
      await eventually('the last lines', async () => {
        const flood = readFileSync(logOf(pod, 'flood'), 'utf8');
        return flood.endsWith(' the end\n') && kubelet.logOf(pod, 'quiet').endsWith(' F again\n');
      });
      const log = logOf(pod, 'flood');
      const text = [...globSync(`${log}.*`).sort(), log]
        .map((path) => readFileSync(path))
        .map((bytes) => String(bytes[0] === GZIP ? gunzipSync(bytes) : bytes))
        .join('');
      const pieces = text.replace(/^\S+ stdout /gm, '').replace(/^F |^P (.*)\n/gm, '$1');
      const lines = pieces.split('\n').slice(0, -2);
      const wrong = lines.findIndex((line, index) => line !== `line ${index}`);
      assert.equal(wrong, -1, `"${lines[wrong]}" is line ${wrong} of ${lines.length}`);
      // It ran when it was listed, and has ended since.
      const ended = kubelet.containerOf(pod, 'done');
      const before = readFileSync(ended.logPath, 'utf8');
      await assert.rejects(
        rotateLog(client, { id: ended.id, policy: { ...policy, bytesMax: 0 } }),
        (error) => hasCode(error, GRPC_FAILED_PRECONDITION),
      );
      assert.match(before, / stdout F last words\n$/);
      assert.equal(readFileSync(ended.logPath, 'utf8'), before);
      assert.deepEqual(globSync(`${ended.logPath}.*`), []);
    }
  });

  /** Runs, or has run if it is one that ends. */
  function hasBegun(pod: PodManifest, name: string): boolean {
    return node.kubelet.shown(pod, name).state === (name === 'done' ? 'terminated' : 'running');
  }
});
