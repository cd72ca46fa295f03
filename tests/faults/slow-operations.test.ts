// The bus, the gateway and the owner killed in the middle of a call that takes two seconds: the call,
// or its caller's retry, has the result, and there is one effect.

import assert from 'node:assert/strict';
import { setTimeout as sleep } from 'node:timers/promises';
import {
  CreateContainerRequest,
  ListContainersRequest,
  ListImagesRequest,
  ListPodSandboxRequest,
  PullImageRequest,
  RemoveImageRequest,
  RemovePodSandboxRequest,
  RunPodSandboxRequest,
  StartContainerRequest,
} from '@cribus/contracts/gen/cri/v1/api.ts';
import { after, before, describe, it } from 'mocha';
import { containerStatus, podConfig, shellContainer } from '../e2e/harness/pods.ts';
import { repeat } from './harness/everything-works.ts';
import { type PartName, recoveryMs } from './harness/fault-node.ts';
import { added, assertSameFootprint, footprint } from './harness/footprint.ts';
import { type SlowNode, startSlowNode } from './harness/slow-node.ts';

/** So long after the call begins a part is killed. */
const KILL_AFTER_MS = 500;
/** Of each of an image's two blobs. */
const SLOW_BLOB_MS = 1_000;

/** By the call: who is killed in turn, the owner last. */
const VICTIMS = {
  RunPodSandbox: ['nats-server', 'cri-gateway', 'sandbox-manager'],
  CreateContainer: ['nats-server', 'cri-gateway', 'runtime-runc'],
  PullImage: ['nats-server', 'cri-gateway', 'image-service'],
} as const satisfies Record<string, readonly PartName[]>;

describe('a part killed 0.5 s into a call that takes 2 s', () => {
  let node: SlowNode;

  before(async () => {
    node = await startSlowNode();
  });
  after(async () => {
    await node?.destroy();
  });

  /** Calls again with the same request after each error; answers the result. */
  async function callWhileKilling<T>(
    what: string,
    victim: PartName,
    call: () => Promise<T>,
  ): Promise<T> {
    const pid = await node.stack.pidOf(victim);
    const beganMs = performance.now();
    let killedMs = Number.POSITIVE_INFINITY;
    const killing = sleep(KILL_AFTER_MS).then(() => {
      process.kill(pid, 'SIGKILL');
      killedMs = performance.now();
    });
    let result: T | undefined;
    const answered = repeat(
      what,
      async () => {
        result = await call();
        assert.ok(performance.now() >= killedMs, `${what} took less than ${KILL_AFTER_MS} ms`);
      },
      beganMs + KILL_AFTER_MS + recoveryMs(),
    );
    await Promise.all([killing, answered]);
    console.log(`      ${Math.round(performance.now() - killedMs)} ms after the kill`);
    if (result === undefined) throw new Error('no result');
    return result;
  }

  /** A pull fetches the configuration, then the layer. */
  const slowBlobs = (areSlow: boolean) => {
    node.small.intercept = (incoming, response) => {
      if (!areSlow || !incoming.url?.includes('/blobs/')) return false;
      const answer = () => node.small.serve(incoming, response);
      setTimeout(answer, SLOW_BLOB_MS);
      return true;
    };
  };

  for (const victim of VICTIMS.RunPodSandbox) {
    it(`RunPodSandbox has its result within 5 s of kill -9 of ${victim}, with one sandbox, one address and one port`, async () => {
      const { cri } = node.stack;
      const before = footprint(node.places);
      const config = await podConfig(node.stack);
      const request = RunPodSandboxRequest.fromPartial({ config });
      await node.slow('plugin', true);
      const { podSandboxId } = await callWhileKilling('RunPodSandbox', victim, () =>
        cri.call('runPodSandbox', request),
      );
      await node.slow('plugin', false);
      // Longer than a plugin of a killed manager would still run.
      await sleep(2_000);
      const { items } = await cri.call('listPodSandbox', ListPodSandboxRequest.fromPartial({}));
      const ids = items.filter(({ metadata }) => metadata?.uid === config.metadata?.uid);
      assert.deepEqual(
        ids.map(({ id }) => id),
        [podSandboxId],
      );
      const { sandbox, pins, address, port } = added(before, footprint(node.places));
      assert.deepEqual(
        { sandbox, pins, address, port },
        { sandbox: 1, pins: 1, address: 1, port: 1 },
      );
      await cri.call('removePodSandbox', RemovePodSandboxRequest.fromPartial({ podSandboxId }));
      await assertSameFootprint(node.places, before);
    });
  }

  for (const victim of VICTIMS.CreateContainer) {
    it(`CreateContainer has its result within 5 s of kill -9 of ${victim}, with one container, one monitor and one mount`, async () => {
      const { cri } = node.stack;
      const before = footprint(node.places);
      const sandboxConfig = await podConfig(node.stack);
      const { podSandboxId } = await cri.call(
        'runPodSandbox',
        RunPodSandboxRequest.fromPartial({ config: sandboxConfig }),
      );
      const withPod = footprint(node.places);
      const config = shellContainer(node.image, 'echo runs; sleep 1000');
      const request = CreateContainerRequest.fromPartial({ podSandboxId, config, sandboxConfig });
      await node.slow('create', true);
      const { containerId } = await callWhileKilling('CreateContainer', victim, () =>
        cri.call('createContainer', request),
      );
      await node.slow('create', false);
      await sleep(2_000);
      const { containers } = await cri.call(
        'listContainers',
        ListContainersRequest.fromPartial({ filter: { podSandboxId } }),
      );
      assert.deepEqual(
        containers.map(({ id }) => id),
        [containerId],
      );
      const { container, bundle, engine, cgroup, lease, process } = added(
        withPod,
        footprint(node.places),
      );
      assert.deepEqual(
        { container, bundle, engine, cgroup, lease },
        { container: 1, bundle: 1, engine: 1, cgroup: 1, lease: 1 },
      );
      // The monitor, and the engine's waiting process.
      assert.ok((process ?? 0) <= 2, `${process} processes`);
      await cri.call('startContainer', StartContainerRequest.fromPartial({ containerId }));
      assert.equal((await containerStatus(cri, containerId)).state, 1);
      await cri.call('removePodSandbox', RemovePodSandboxRequest.fromPartial({ podSandboxId }));
      await assertSameFootprint(node.places, before);
    });
  }

  for (const victim of VICTIMS.PullImage) {
    it(`PullImage has its result within 5 s of kill -9 of ${victim}, with one image and one layer`, async () => {
      const { cri } = node.stack;
      const before = footprint(node.places);
      const image = node.freshImage();
      const request = PullImageRequest.fromPartial({ image: { image } });
      slowBlobs(true);
      const { imageRef } = await callWhileKilling('PullImage', victim, () =>
        cri.call('pullImage', request),
      );
      slowBlobs(false);
      const { images } = await cri.call('listImages', ListImagesRequest.fromPartial({}));
      const found = images.filter(({ repoTags }) => repoTags.includes(image));
      assert.deepEqual(
        found.map(({ id }) => id),
        [imageRef],
      );
      const { image: records, layer, ingest = 0 } = added(before, footprint(node.places));
      assert.deepEqual({ records, layer, ingest }, { records: 1, layer: 1, ingest: 0 });
      await cri.call('removeImage', RemoveImageRequest.fromPartial({ image: { image } }));
      await assertSameFootprint(node.places, before);
    });
  }
});
