// The six streamed lists beside the plain ones of the same stack: the same items, also where the plain
// answer would be too large for a caller.

import assert from 'node:assert/strict';
import { GRPC_CODE } from '@cribus/contracts/failure.ts';
import {
  ContainerState,
  ListContainerStatsRequest,
  ListContainersRequest,
  ListImagesRequest,
  ListPodSandboxMetricsRequest,
  ListPodSandboxRequest,
  ListPodSandboxStatsRequest,
  NamespaceMode,
  PodSandboxState,
  StreamContainerStatsRequest,
  StreamContainersRequest,
  StreamImagesRequest,
  StreamPodSandboxesRequest,
  StreamPodSandboxesResponse,
  StreamPodSandboxMetricsRequest,
  StreamPodSandboxStatsRequest,
} from '@cribus/contracts/gen/cri/v1/api.ts';
import { describe, it } from 'mocha';
import type { Cri, Method, RequestOfMethod, ResponseOfMethod } from './harness/cri.ts';
import { failureOf } from './harness/image-calls.ts';
import { runPod, runSandbox } from './harness/pods.ts';
import { stackSuite } from './harness/suite.ts';

async function messagesOf<M extends Method>(
  cri: Cri,
  method: M,
  request: RequestOfMethod<M>,
): Promise<ResponseOfMethod<M>[]> {
  const messages: ResponseOfMethod<M>[] = [];
  for await (const message of cri.stream(method, request)) {
    messages.push(message as ResponseOfMethod<M>);
  }
  return messages;
}

describe('the streamed lists', () => {
  const suite = stackSuite();

  it('of sandboxes, containers and images have the items of the plain lists in the same order, with the same filters', async () => {
    const { cri, stack, image } = suite;
    const labels = { app: 'web' };
    const { podId } = await runPod(stack, { image, script: 'sleep 600', pod: { labels } });
    await runPod(stack, { image, script: 'exit 0', handler: 'crun' });

    for (const filter of [
      undefined,
      { labelSelector: labels },
      { state: { state: PodSandboxState.SANDBOX_NOTREADY } },
    ]) {
      const streamed = await messagesOf(
        cri,
        'streamPodSandboxes',
        StreamPodSandboxesRequest.fromPartial({ filter }),
      );
      const listed = await cri.call(
        'listPodSandbox',
        ListPodSandboxRequest.fromPartial({ filter }),
      );
      assert.deepEqual(
        streamed.flatMap((message) => message.podSandboxes),
        listed.items,
      );
      assert.ok(streamed.every((message) => message.podSandboxes.length > 0));
    }
    for (const filter of [
      undefined,
      { podSandboxId: podId },
      { state: { state: ContainerState.CONTAINER_RUNNING } },
    ]) {
      const streamed = await messagesOf(
        cri,
        'streamContainers',
        StreamContainersRequest.fromPartial({ filter }),
      );
      const listed = await cri.call(
        'listContainers',
        ListContainersRequest.fromPartial({ filter }),
      );
      assert.deepEqual(
        streamed.flatMap((message) => message.containers),
        listed.containers,
      );
    }
    for (const filter of [undefined, { image: { image } }, { image: { image: 'absent:1' } }]) {
      const streamed = await messagesOf(
        cri,
        'streamImages',
        StreamImagesRequest.fromPartial({ filter }),
      );
      const listed = await cri.call('listImages', ListImagesRequest.fromPartial({ filter }));
      assert.deepEqual(
        streamed.flatMap((message) => message.images),
        listed.images,
      );
    }
  });

  it('of statistics and metrics name the same containers and pods as the plain lists', async () => {
    const { cri, stack, image } = suite;
    const { containerId } = await runPod(stack, { image, script: 'sleep 600' });
    await runPod(stack, { image, script: 'sleep 600', handler: 'crun' });
    const containers = await messagesOf(
      cri,
      'streamContainerStats',
      StreamContainerStatsRequest.fromPartial({}),
    );
    const plain = await cri.call('listContainerStats', ListContainerStatsRequest.fromPartial({}));
    assert.deepEqual(
      containers.flatMap(({ containerStats }) => containerStats.map((one) => one.attributes?.id)),
      plain.stats.map((one) => one.attributes?.id),
    );
    assert.equal(plain.stats.length, 2);
    const one = await messagesOf(
      cri,
      'streamContainerStats',
      StreamContainerStatsRequest.fromPartial({ filter: { id: containerId } }),
    );
    assert.deepEqual(
      one.flatMap(({ containerStats }) => containerStats.map(({ attributes }) => attributes?.id)),
      [containerId],
    );
    const pods = await messagesOf(
      cri,
      'streamPodSandboxStats',
      StreamPodSandboxStatsRequest.fromPartial({}),
    );
    const plainPods = await cri.call(
      'listPodSandboxStats',
      ListPodSandboxStatsRequest.fromPartial({}),
    );
    assert.deepEqual(
      pods.flatMap(({ podSandboxStats }) => podSandboxStats.map((pod) => pod.attributes?.id)),
      plainPods.stats.map((pod) => pod.attributes?.id),
    );
    const metrics = await messagesOf(
      cri,
      'streamPodSandboxMetrics',
      StreamPodSandboxMetricsRequest.fromPartial({}),
    );
    const plainMetrics = await cri.call(
      'listPodSandboxMetrics',
      ListPodSandboxMetricsRequest.fromPartial({}),
    );
    assert.deepEqual(
      metrics.flatMap(({ podSandboxMetrics }) => podSandboxMetrics.map((pod) => pod.podSandboxId)),
      plainMetrics.podMetrics.map((pod) => pod.podSandboxId),
    );
    assert.equal(plainMetrics.podMetrics.length, 2);
  });

  it('carry a list of over 16 MiB, which the plain call refuses, in messages far below that', async () => {
    const { cri, stack } = suite;
    const count = 36;
    const annotations = { long: 'x'.repeat(500_000) };
    // On the host's network they are made in no time.
    const linux = { securityContext: { namespaceOptions: { network: NamespaceMode.NODE } } };
    const ids = await Promise.all(
      Array.from({ length: count }, async () => {
        const { podSandboxId } = await runSandbox(stack, { pod: { annotations, linux } });
        return podSandboxId;
      }),
    );
    await failureOf(cri.call('listPodSandbox', ListPodSandboxRequest.fromPartial({})), {
      code: 'RESOURCE_EXHAUSTED',
      message: /./,
    });
    const messages = await messagesOf(
      cri,
      'streamPodSandboxes',
      StreamPodSandboxesRequest.fromPartial({}),
    );
    const streamed = messages.flatMap((message) => message.podSandboxes.map(({ id }) => id));
    assert.deepEqual(streamed.sort(), ids.sort());
    for (const message of messages) {
      assert.ok(StreamPodSandboxesResponse.encode(message).finish().length < 1024 * 1024);
    }
    await Promise.all(
      ids.map(async (podSandboxId) => {
        await cri.call('stopPodSandbox', { podSandboxId });
        await cri.call('removePodSandbox', { podSandboxId });
      }),
    );
  });

  it('end with CANCELLED when their caller goes away', async () => {
    const { cri, stack, image } = suite;
    await runPod(stack, { image, script: 'sleep 600' });
    const stream = cri.stream('streamContainers', StreamContainersRequest.fromPartial({}));
    stream.cancel();
    const error = await new Promise<{ code?: number }>((resolve) => {
      stream.on('data', () => undefined);
      stream.on('error', resolve);
    });
    assert.equal(error.code, GRPC_CODE.CANCELLED);
  });
});
