import assert from 'node:assert/strict';
import { Failure, GRPC_CODE } from '@cribus/contracts/failure.ts';
import * as cri from '@cribus/contracts/gen/cri/v1/api.ts';
import {
  ContainerPhase,
  ContainerRecord,
  ImageRecord,
  SandboxPhase,
  SandboxRecord,
} from '@cribus/contracts/gen/node/v1/records.ts';
import { IMAGE_SERVICE, runtimeOwner, SANDBOX_MANAGER } from '@cribus/contracts/subjects.ts';
import type { ServiceError } from '@grpc/grpc-js';
import { afterEach, describe, it } from 'mocha';
import { ask, report, startGateway } from './testing/start-gateway.ts';
import { STREAM_MESSAGE_BYTES } from './view/chunks.ts';

type World = Awaited<ReturnType<typeof startGateway>>;

const idOf = (index: number): string => index.toString(16).padStart(64, '0');

function addContainers(world: World, count: number, annotation: string): void {
  for (let index = 0; index < count; index += 1) {
    const value = ContainerRecord.fromPartial({
      id: idOf(index),
      sandboxId: idOf(index % 2),
      handler: 'runc',
      config: {
        metadata: { name: 'c' },
        labels: { even: String(index % 2 === 0) },
        annotations: { annotation },
      },
      phase: ContainerPhase.RUNNING,
    });
    world.gateway.view.apply(report(runtimeOwner('runc'), { $case: 'container', value }));
  }
}

async function messagesOf<M>(stream: AsyncIterable<M>): Promise<M[]> {
  const messages: M[] = [];
  for await (const message of stream) messages.push(message);
  return messages;
}

describe('streamed lists', () => {
  let world: World;

  afterEach(() => world.close());

  it('carries the items of the plain list, many in a message and no message too large', async () => {
    world = await startGateway();
    await ask(world.runtime, 'listContainers', {});
    addContainers(world, 1_000, 'x'.repeat(1_000));
    const stream = world.runtime.streamContainers(cri.StreamContainersRequest.fromPartial({}));
    const messages = await messagesOf<cri.StreamContainersResponse>(stream);
    const { containers } = await ask(world.runtime, 'listContainers', {});
    assert.deepEqual(
      messages.flatMap((message) => message.containers),
      containers,
    );
    assert.equal(containers.length, 1_000);
    assert.ok(messages.length > 3 && messages.length < 10, `${messages.length} messages`);
    for (const message of messages) {
      const bytes = cri.StreamContainersResponse.encode(message).finish().length;
      assert.ok(bytes <= STREAM_MESSAGE_BYTES && message.containers.length > 0);
    }
  });

  it('filters as the plain lists do', async () => {
    world = await startGateway();
    await ask(world.runtime, 'listContainers', {});
    addContainers(world, 10, '');
    const sandbox = SandboxRecord.fromPartial({
      id: idOf(99),
      handler: 'runc',
      phase: SandboxPhase.NOTREADY,
    });
    const image = ImageRecord.fromPartial({
      id: `sha256:${idOf(7)}`,
      repoTags: ['docker.io/library/other:1'],
    });
    world.gateway.view.apply(report(SANDBOX_MANAGER, { $case: 'sandbox', value: sandbox }));
    world.gateway.view.apply(report(IMAGE_SERVICE, { $case: 'image', value: image }));
    const containers = await messagesOf<cri.StreamContainersResponse>(
      world.runtime.streamContainers(
        cri.StreamContainersRequest.fromPartial({
          filter: { labelSelector: { even: 'true' }, podSandboxId: idOf(0) },
        }),
      ),
    );
    assert.equal(containers.flatMap((message) => message.containers).length, 5);
    const sandboxes = await messagesOf<cri.StreamPodSandboxesResponse>(
      world.runtime.streamPodSandboxes(
        cri.StreamPodSandboxesRequest.fromPartial({
          filter: { state: { state: cri.PodSandboxState.SANDBOX_READY } },
        }),
      ),
    );
    assert.deepEqual(sandboxes, []);
    const images = await messagesOf<cri.StreamImagesResponse>(
      world.images.streamImages(
        cri.StreamImagesRequest.fromPartial({ filter: { image: { image: 'other:1' } } }),
      ),
    );
    assert.deepEqual(
      images.flatMap((message) => message.images).map((item) => item.id),
      [image.id],
    );
  });

  it('carries a list that is too large for one message', async () => {
    world = await startGateway();
    await ask(world.runtime, 'listContainers', {});
    addContainers(world, 20, 'x'.repeat(1024 * 1024));
    await assert.rejects(
      () => ask(world.runtime, 'listContainers', {}),
      (error: ServiceError) => error.code === GRPC_CODE.RESOURCE_EXHAUSTED,
    );
    const stream = world.runtime.streamContainers(cri.StreamContainersRequest.fromPartial({}));
    const messages = await messagesOf<cri.StreamContainersResponse>(stream);
    const ids = messages.flatMap((message) => message.containers).map((item) => item.id);
    assert.deepEqual(
      ids,
      Array.from({ length: 20 }, (_, index) => idOf(index)),
    );
  });

  it('answers UNAVAILABLE while the view is not whole, and never a shorter stream', async () => {
    world = await startGateway(undefined, async () => {
      throw new Failure('unavailable', 'away');
    });
    const stream = world.images.streamImages(cri.StreamImagesRequest.fromPartial({}));
    await assert.rejects(
      () => messagesOf(stream),
      (error: ServiceError) => error.code === GRPC_CODE.UNAVAILABLE,
    );
  });
});
