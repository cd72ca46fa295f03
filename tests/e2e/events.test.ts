// Container events as an evented kubelet reads them: every step of pods and containers, to several
// subscribers, through deaths of parts of the stack, and to one that doesn't keep up.

import assert from 'node:assert/strict';
import { once } from 'node:events';
import { GRPC_CODE } from '@cribus/contracts/failure.ts';
import {
  type ContainerEventResponse,
  ContainerEventType,
  ContainerState,
  CreateContainerRequest,
  GetEventsRequest,
  PodSandboxState,
} from '@cribus/contracts/gen/cri/v1/api.ts';
import type { ServiceError } from '@grpc/grpc-js';
import { describe, it } from 'mocha';
import { type Cri, connectCri } from './harness/cri.ts';
import { runPod, runSandbox, shellContainer, startContainer } from './harness/pods.ts';
import { eventually } from './harness/stack.ts';
import { HANDLERS, removeAllPods, stackSuite } from './harness/suite.ts';

const NAMES: Readonly<Record<number, string>> = {
  [ContainerEventType.CONTAINER_CREATED_EVENT]: 'created',
  [ContainerEventType.CONTAINER_STARTED_EVENT]: 'started',
  [ContainerEventType.CONTAINER_STOPPED_EVENT]: 'stopped',
  [ContainerEventType.CONTAINER_DELETED_EVENT]: 'deleted',
};

interface Subscriber {
  readonly events: ContainerEventResponse[];
  /** Steps of one object, in the order in which they came. */
  stepsOf(id: string): string[];
  /** The error that ended it. */
  readonly ended: Promise<ServiceError>;
  pause(): void;
  resume(): void;
  cancel(): void;
}

/** Answers once the gateway listens. */
async function subscribe(cri: Cri): Promise<Subscriber> {
  const stream = cri.stream('getContainerEvents', GetEventsRequest.fromPartial({}));
  const events: ContainerEventResponse[] = [];
  stream.on('data', (event: ContainerEventResponse) => events.push(event));
  const ended = new Promise<ServiceError>((resolve) => stream.once('error', resolve));
  await Promise.race([once(stream, 'metadata'), ended.then((error) => Promise.reject(error))]);
  return {
    events,
    stepsOf: (id) =>
      events
        .filter(({ containerId }) => containerId === id)
        .map(({ containerEventType }) => NAMES[containerEventType] ?? ''),
    ended,
    pause: () => stream.pause(),
    resume: () => stream.resume(),
    cancel: () => stream.cancel(),
  };
}

const WHOLE_LIFE = ['created', 'started', 'stopped', 'deleted'];

describe('container events', () => {
  const suite = stackSuite();

  for (const handler of HANDLERS) {
    it(`tell each step of a pod and its containers under ${handler}, also of one that exits at once, with the whole status of the pod`, async () => {
      const { cri, stack, image } = suite;
      const first = await subscribe(cri);
      const second = await subscribe(cri);
      const pod = await runPod(stack, { image, handler, script: 'exit 3' });
      const { podId, containerId } = pod;
      const config = shellContainer(image, 'sleep 600', { name: 'other' });
      const other = await startContainer(cri, podId, config, pod.config);
      await eventually('one end and the other start are told', async () => {
        return first.stepsOf(containerId).length === 3 && first.stepsOf(other).length === 2;
      });
      const status = await cri.call('podSandboxStatus', { podSandboxId: podId, verbose: false });
      const told = first.events.at(-1);
      assert.ok(status.timestamp > (told?.createdAt ?? 0n), 'a later reading bears a later time');
      assert.deepEqual(
        status.containersStatuses.map(({ id }) => id).sort(),
        [containerId, other].sort(),
      );
      await removeAllPods(cri);
      await eventually('all is told', async () => first.stepsOf(podId).includes('deleted'));

      for (const id of [podId, containerId, other]) {
        assert.deepEqual(first.stepsOf(id), WHOLE_LIFE, id);
      }
      let lastNs = 0n;
      for (const event of first.events) {
        assert.deepEqual(event.podSandboxStatus?.metadata, pod.config.metadata);
        assert.equal(event.podSandboxStatus?.id, podId);
        assert.ok(event.createdAt > lastNs, 'the clock of events rises');
        lastNs = event.createdAt;
      }
      const stopped = first.events.find(
        (event) =>
          event.containerId === containerId &&
          event.containerEventType === ContainerEventType.CONTAINER_STOPPED_EVENT,
      );
      const exited = stopped?.containersStatuses.find(({ id }) => id === containerId);
      assert.deepEqual([exited?.state, exited?.exitCode], [ContainerState.CONTAINER_EXITED, 3]);
      assert.equal(
        first.events.at(-1)?.podSandboxStatus?.state,
        PodSandboxState.SANDBOX_NOTREADY,
        'a deleted sandbox is as it last was',
      );
      await eventually('both have it all', async () => second.events.length >= first.events.length);
      assert.deepEqual(second.events, first.events);
      first.cancel();
      second.cancel();
      assert.equal((await first.ended).code, GRPC_CODE.CANCELLED);
    });
  }

  it('tell once what happened while the worker was killed, and replay nothing to who asks a restarted gateway', async () => {
    const { cri, stack, image } = suite;
    const subscriber = await subscribe(cri);
    const { podId, containerId } = await runPod(stack, {
      image,
      script: 'while [ ! -e /tmp/go ]; do sleep 0.05; done; exit 4',
      container: { mounts: [{ containerPath: '/tmp', hostPath: stack.root }] },
    });
    await eventually('it runs', async () => subscriber.stepsOf(containerId).length === 2);
    process.kill(await stack.pidOf('runtime-runc'), 'SIGKILL');
    const { writeFile } = await import('node:fs/promises');
    await writeFile(`${stack.root}/go`, '');
    await eventually('its end is told', async () =>
      subscriber.stepsOf(containerId).includes('stopped'),
    );
    process.kill(await stack.pidOf('cri-gateway'), 'SIGKILL');
    assert.equal((await subscriber.ended).code, GRPC_CODE.UNAVAILABLE);
    assert.deepEqual(subscriber.stepsOf(containerId), ['created', 'started', 'stopped']);
    const after = await eventually('the gateway is back', () => subscribe(cri), 20_000);
    await removeAllPods(cri);
    await eventually('the removal is told', async () => after.stepsOf(podId).includes('deleted'));
    assert.deepEqual(after.stepsOf(podId), ['stopped', 'deleted']);
    assert.deepEqual(after.stepsOf(containerId), ['deleted']);
    after.cancel();
  });

  it('cut a subscriber that does not read, tell it so, and neither grow nor fail the others', async () => {
    const { cri, stack, image } = suite;
    const lazyClient = connectCri(cri.endpoint);
    const lazy = await subscribe(lazyClient);
    const eager = await subscribe(cri);
    const { podSandboxId, config } = await runSandbox(stack);
    await eventually('both listen', async () => lazy.events.length === 2);
    lazy.pause();
    // Every event carries the statuses of all containers of the pod, so they grow quickly; this client
    // reads sixteen ahead, whatever it is asked for.
    const annotations = { long: 'x'.repeat(100_000) };
    const count = 26;
    const ids: string[] = [];
    for (let index = 0; index < count; index += 1) {
      const container = shellContainer(image, 'true', { name: `c${index}`, annotations });
      const { containerId } = await cri.call(
        'createContainer',
        CreateContainerRequest.fromPartial({
          podSandboxId,
          config: container,
          sandboxConfig: config,
        }),
      );
      ids.push(containerId);
    }
    await eventually('the eager one has all', async () => eager.events.length === count + 2);
    lazy.resume();
    const error = await lazy.ended;
    assert.equal(error.code, GRPC_CODE.RESOURCE_EXHAUSTED);
    assert.match(error.details, /wait for this subscriber: it is too slow/);
    assert.ok(lazy.events.length < eager.events.length, `${lazy.events.length} were delivered`);
    for (const id of ids) assert.deepEqual(eager.stepsOf(id), ['created']);
    eager.cancel();
    lazyClient.close();
  });
});
