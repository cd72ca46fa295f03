// The path of a pod through CRI as a kubelet walks it: what the runtime says of itself, and a pod's
// and its container's whole life under each handler, with every field of the answers.

import assert from 'node:assert/strict';
import { join } from 'node:path';
import { freePort } from '@cribus/cli/tour/registry.ts';
import {
  ContainerState,
  CreateContainerRequest,
  ListContainersRequest,
  ListPodSandboxRequest,
  NamespaceMode,
  PodSandboxState,
  RunPodSandboxRequest,
} from '@cribus/contracts/gen/cri/v1/api.ts';
import { describe, it } from 'mocha';
import { fetchText } from './harness/http.ts';
import { failureOf } from './harness/image-calls.ts';
import { containerStatus, podConfig, runPod, shellContainer } from './harness/pods.ts';
import { eventually, readLog } from './harness/stack.ts';
import { HANDLERS, stackSuite } from './harness/suite.ts';

const LABELS = {
  'io.kubernetes.pod.name': 'nginx',
  'io.kubernetes.pod.namespace': 'default',
  'io.kubernetes.pod.uid': '0f3f0a6e',
  'app.kubernetes.io/name': 'web',
  empty: '',
};
const ANNOTATIONS = {
  'kubernetes.io/config.source': 'api',
  'kubernetes.io/config.seen': '2026-11-23T18:09:26.938496500Z',
  json: '{"a": [1, "ü", "\\n"]}\nsecond line',
};
const WEB =
  "trap 'exit 3' TERM; echo out; echo err >&2; httpd -p 8080 -h /www; while :; do sleep 0.05; done";

const nowNs = () => BigInt(Date.now()) * 1_000_000n;

describe('the path of a pod', () => {
  const suite = stackSuite();

  for (const handler of HANDLERS) {
    it(`walks a pod through its whole life under ${handler} with every field of its answers right`, async () => {
      const { cri, stack } = suite;
      const beforeNs = nowNs();
      const config = await podConfig(stack, {
        name: 'nginx',
        labels: LABELS,
        annotations: ANNOTATIONS,
      });
      const request = RunPodSandboxRequest.fromPartial({ config, runtimeHandler: handler });
      const { podSandboxId } = await cri.call('runPodSandbox', request);
      assert.match(podSandboxId, /^[0-9a-f]{64}$/);

      const pod = await cri.call('podSandboxStatus', { podSandboxId, verbose: false });
      assert.equal(pod.status?.state, PodSandboxState.SANDBOX_READY);
      assert.deepEqual(pod.status?.metadata, config.metadata);
      assert.deepEqual(pod.status?.labels, LABELS);
      assert.deepEqual(pod.status?.annotations, ANNOTATIONS);
      assert.equal(pod.status?.runtimeHandler, handler);
      assert.ok(pod.status.createdAt > beforeNs && pod.status.createdAt < nowNs());
      assert.match(pod.status.network?.ip ?? '', /^10\.\d+\.\d+\.\d+$/);
      assert.equal(pod.status.linux?.namespaces?.options?.network, NamespaceMode.POD);
      assert.equal(pod.status.linux?.namespaces?.options?.pid, NamespaceMode.CONTAINER);
      assert.deepEqual(pod.containersStatuses, []);
      assert.ok(pod.timestamp > 0n);
      assert.deepEqual(pod.info, {});

      const container = shellContainer(suite.image, WEB, {
        labels: LABELS,
        annotations: ANNOTATIONS,
        logPath: 'main/0.log',
      });
      const { containerId } = await cri.call(
        'createContainer',
        CreateContainerRequest.fromPartial({
          podSandboxId,
          config: container,
          sandboxConfig: config,
        }),
      );
      assert.match(containerId, /^[0-9a-f]{64}$/);
      const created = await containerStatus(cri, containerId);
      assert.equal(created.state, ContainerState.CONTAINER_CREATED);
      assert.deepEqual([created.startedAt, created.finishedAt, created.exitCode], [0n, 0n, 0]);
      assert.ok(created.createdAt >= pod.status.createdAt && created.createdAt < nowNs());
      assert.deepEqual(created.metadata, container.metadata);
      assert.deepEqual(created.labels, LABELS);
      assert.deepEqual(created.annotations, ANNOTATIONS);
      assert.equal(created.image?.image, suite.image);
      assert.equal(created.imageId, suite.imageId);
      assert.match(created.imageRef, /^127\.0\.0\.1:\d+\/test\/busybox@sha256:[0-9a-f]{64}$/);
      assert.equal(created.logPath, join(config.logDirectory, 'main/0.log'));

      await cri.call('startContainer', { containerId });
      const running = await containerStatus(cri, containerId);
      assert.equal(running.state, ContainerState.CONTAINER_RUNNING);
      assert.ok(running.startedAt >= running.createdAt && running.startedAt < nowNs());
      assert.deepEqual([running.finishedAt, running.exitCode, running.reason], [0n, 0, '']);
      assert.deepEqual(running.user?.linux?.uid, 0n);
      assert.match(
        await eventually('the page', () => fetchText(`http://${pod.status?.network?.ip}:8080/`)),
        /hello from a pod/,
      );

      const listed = await cri.call('listContainers', ListContainersRequest.fromPartial({}));
      assert.equal(listed.containers.length, 1);
      const [item] = listed.containers;
      assert.deepEqual(
        [item?.id, item?.podSandboxId, item?.state, item?.imageId, item?.imageRef, item?.createdAt],
        [
          containerId,
          podSandboxId,
          ContainerState.CONTAINER_RUNNING,
          suite.imageId,
          running.imageRef,
          running.createdAt,
        ],
      );
      assert.deepEqual([item?.labels, item?.annotations], [LABELS, ANNOTATIONS]);
      const withContainers = await cri.call('podSandboxStatus', { podSandboxId, verbose: false });
      assert.deepEqual(
        withContainers.containersStatuses.map((one) => one),
        [await containerStatus(cri, containerId)],
      );
      assert.ok(withContainers.timestamp > pod.timestamp);

      await cri.call('stopContainer', { containerId, timeout: 20n });
      const exited = await containerStatus(cri, containerId);
      assert.equal(exited.state, ContainerState.CONTAINER_EXITED);
      assert.deepEqual([exited.exitCode, exited.reason], [3, 'Error']);
      assert.ok(exited.finishedAt > running.startedAt && exited.finishedAt < nowNs());
      assert.deepEqual(
        [exited.startedAt, exited.createdAt],
        [running.startedAt, running.createdAt],
      );
      assert.deepEqual(
        (await readLog(exited.logPath))
          .map(({ stream, tag, text }) => `${stream} ${tag} ${text}`)
          .sort(),
        ['stderr F err', 'stdout F out'],
      );
      await cri.call('stopContainer', { containerId, timeout: 20n });

      await cri.call('stopPodSandbox', { podSandboxId });
      const stopped = await cri.call('podSandboxStatus', { podSandboxId, verbose: false });
      assert.equal(stopped.status?.state, PodSandboxState.SANDBOX_NOTREADY);
      assert.deepEqual(
        [stopped.status?.labels, stopped.status?.annotations],
        [LABELS, ANNOTATIONS],
      );
      assert.equal(stopped.status.createdAt, pod.status.createdAt);
      assert.deepEqual(await containerStatus(cri, containerId), exited, 'a tombstone changed');
      await cri.call('stopPodSandbox', { podSandboxId });

      await cri.call('removeContainer', { containerId });
      await failureOf(containerStatus(cri, containerId), {
        code: 'NOT_FOUND',
        message: new RegExp(containerId),
      });
      await cri.call('removeContainer', { containerId });
      await cri.call('removePodSandbox', { podSandboxId });
      await failureOf(cri.call('podSandboxStatus', { podSandboxId, verbose: false }), {
        code: 'NOT_FOUND',
        message: new RegExp(podSandboxId),
      });
      await cri.call('removePodSandbox', { podSandboxId });
      await cri.call('stopPodSandbox', { podSandboxId });
    });
  }

  it('lists pods by id, state and labels, and by a shortened id', async () => {
    const { cri, stack } = suite;
    const run = async (labels: Record<string, string>) => {
      const config = await podConfig(stack, { labels });
      const request = RunPodSandboxRequest.fromPartial({ config });
      return (await cri.call('runPodSandbox', request)).podSandboxId;
    };
    const [one, two] = [await run({ app: 'a' }), await run({ app: 'b', tier: 'x' })];
    await cri.call('stopPodSandbox', { podSandboxId: two });
    const list = async (
      filter: NonNullable<Parameters<typeof ListPodSandboxRequest.fromPartial>[0]>['filter'],
    ) => {
      const request = ListPodSandboxRequest.fromPartial({ filter });
      return (await cri.call('listPodSandbox', request)).items.map(({ id }) => id);
    };
    assert.deepEqual((await list({})).sort(), [one, two].sort());
    assert.deepEqual(await list({ id: one }), [one]);
    assert.deepEqual(await list({ id: one.slice(0, 13) }), [one]);
    assert.deepEqual(await list({ state: { state: PodSandboxState.SANDBOX_READY } }), [one]);
    assert.deepEqual(await list({ state: { state: PodSandboxState.SANDBOX_NOTREADY } }), [two]);
    assert.deepEqual(await list({ labelSelector: { app: 'b', tier: 'x' } }), [two]);
    assert.deepEqual(await list({ labelSelector: { app: 'b' }, id: one }), []);
  });

  it('joins equal RunPodSandbox calls that run at once, with one sandbox and one address', async () => {
    const { cri, stack } = suite;
    const request = RunPodSandboxRequest.fromPartial({ config: await podConfig(stack) });
    const answers = await Promise.all([1, 2, 3].map(() => cri.call('runPodSandbox', request)));
    assert.equal(new Set(answers.map(({ podSandboxId }) => podSandboxId)).size, 1);
    const { items } = await cri.call('listPodSandbox', ListPodSandboxRequest.fromPartial({}));
    assert.equal(items.length, 1);
  });

  it('stops the containers of a pod with it, and removes a running pod with all of them', async () => {
    const { cri, stack, image } = suite;
    for (const handler of HANDLERS) {
      const pod = await runPod(stack, { image, script: WEB, handler });
      await cri.call('stopPodSandbox', { podSandboxId: pod.podId });
      const { state } = await containerStatus(cri, pod.containerId);
      assert.equal(state, ContainerState.CONTAINER_EXITED, handler);
      const running = await runPod(stack, { image, script: WEB, handler });
      await cri.call('removePodSandbox', { podSandboxId: running.podId });
      await failureOf(containerStatus(cri, running.containerId), {
        code: 'NOT_FOUND',
        message: new RegExp(running.containerId),
      });
    }
  });

  it('answers at a hostPort on 127.0.0.1 and on the pod IP, and no more once the pod is stopped', async () => {
    const { stack, cri, image } = suite;
    const hostPort = await freePort();
    const pod = await runPod(stack, {
      image,
      script: WEB,
      pod: { portMappings: [{ containerPort: 8080, hostPort }] },
    });
    for (const url of [`http://127.0.0.1:${hostPort}/`, `http://${pod.ip}:8080/`]) {
      assert.match(await eventually(url, () => fetchText(url)), /hello from a pod/);
    }
    await cri.call('stopPodSandbox', { podSandboxId: pod.podId });
    await assert.rejects(fetchText(`http://127.0.0.1:${hostPort}/`));
    const next = await runPod(stack, {
      image,
      script: WEB,
      pod: { portMappings: [{ containerPort: 8080, hostPort }] },
    });
    assert.notEqual(next.ip, '');
  });

  it('gives no host port where host_port is 0', async () => {
    const { stack, image } = suite;
    const pod = await runPod(stack, {
      image,
      script: WEB,
      pod: { portMappings: [{ containerPort: 8080, hostPort: 0 }] },
    });
    const url = `http://${pod.ip}:8080/`;
    assert.match(await eventually(url, () => fetchText(url)), /hello from a pod/);
  });
});
