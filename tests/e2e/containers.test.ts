// Containers as a kubelet has them run: how they end and with what reason, how they are stopped, what
// happens to a second one of the same name, and what they may and may not do.

import assert from 'node:assert/strict';
import { existsSync, readdirSync } from 'node:fs';
import { pushImage } from '@cribus/cli/tour/image.ts';
import { writeTar } from '@cribus/cli/tour/tar-writer.ts';
import {
  ContainerState,
  type ContainerStatus,
  CreateContainerRequest,
  ListContainersRequest,
  Signal,
} from '@cribus/contracts/gen/cri/v1/api.ts';
import { describe, it } from 'mocha';
import { composeImage } from './harness/compose-image.ts';
import { failureOf, pullImage } from './harness/image-calls.ts';
import { busyboxLayer } from './harness/images.ts';
import {
  containerStatus,
  exec,
  podConfig,
  runPod,
  shellContainer,
  startContainer,
} from './harness/pods.ts';
import { eventually, readLog } from './harness/stack.ts';
import { HANDLERS, HOST_KERNEL_HANDLERS, stackSuite } from './harness/suite.ts';

const SLEEP = "trap 'exit 0' TERM; while :; do sleep 0.05; done";

describe('containers and how they end', () => {
  const suite = stackSuite();
  const exited = (containerId: string): Promise<ContainerStatus> =>
    eventually(`the end of ${containerId}`, async () => {
      const status = await containerStatus(suite.cri, containerId);
      return status.state === ContainerState.CONTAINER_EXITED ? status : undefined;
    });

  for (const handler of HANDLERS) {
    it(`reports exit codes 0, 7 and 255 and the signal of a killed process under ${handler}`, async () => {
      const { cri, stack, image } = suite;
      const first = await runPod(stack, { image, script: 'exit 0', handler });
      const start = (name: string, script: string) =>
        startContainer(cri, first.podId, shellContainer(image, script, { name }), first.config);
      const [seven, most, killed] = await Promise.all([
        start('seven', 'exit 7'),
        start('most', 'exit 255'),
        start('killed', 'sleep 60 & kill -9 $!; wait $!; exit $?'),
      ]);
      const ends = await Promise.all([first.containerId, seven, most, killed].map(exited));
      assert.deepEqual(
        ends.map(({ exitCode, reason }) => [exitCode, reason]),
        [
          [0, 'Completed'],
          [7, 'Error'],
          [255, 'Error'],
          [137, 'Error'],
        ],
      );
      for (const { startedAt, finishedAt } of ends) assert.ok(finishedAt >= startedAt);
      const { containers } = await cri.call(
        'listContainers',
        ListContainersRequest.fromPartial({}),
      );
      assert.deepEqual(
        containers.map(({ state }) => state),
        Array(4).fill(ContainerState.CONTAINER_EXITED),
        'exited containers stay listed until they are removed',
      );
    });

    it(`stops with the stop signal, within the grace period, and kills after it under ${handler}`, async () => {
      const { cri, stack, image } = suite;
      const polite = await runPod(stack, {
        image,
        script: "trap 'exit 5' USR1; trap 'exit 6' TERM; while :; do sleep 0.05; done",
        handler,
        container: { stopSignal: Signal.SIGUSR1 },
      });
      const stubborn = await startContainer(
        cri,
        polite.podId,
        shellContainer(image, "trap '' TERM; while :; do sleep 0.05; done", { name: 'stubborn' }),
        polite.config,
      );
      const atOnce = await startContainer(
        cri,
        polite.podId,
        shellContainer(image, SLEEP, { name: 'at-once' }),
        polite.config,
      );
      // A trap is set only once the shell has read it.
      await new Promise((resolve) => setTimeout(resolve, 300));
      assert.equal((await containerStatus(cri, polite.containerId)).stopSignal, Signal.SIGUSR1);
      const began = performance.now();
      await cri.call('stopContainer', { containerId: polite.containerId, timeout: 30n });
      assert.ok(performance.now() - began < 10_000, 'an obedient container was waited for');
      assert.equal((await containerStatus(cri, polite.containerId)).exitCode, 5);
      const second = performance.now();
      await cri.call('stopContainer', { containerId: stubborn, timeout: 1n });
      const tookMs = performance.now() - second;
      assert.ok(tookMs >= 950 && tookMs < 10_000, `killed after ${tookMs} ms`);
      await cri.call('stopContainer', { containerId: atOnce, timeout: 0n });
      for (const id of [stubborn, atOnce]) {
        const { state, exitCode, reason } = await containerStatus(cri, id);
        assert.deepEqual(
          [state, exitCode, reason],
          [ContainerState.CONTAINER_EXITED, 137, 'Error'],
        );
      }
    });

    it(`removes created, running and stopped containers, twice each, under ${handler}`, async () => {
      const { cri, stack, image } = suite;
      const pod = await runPod(stack, { image, script: SLEEP, handler });
      const created = await cri.call(
        'createContainer',
        CreateContainerRequest.fromPartial({
          podSandboxId: pod.podId,
          config: shellContainer(image, SLEEP, { name: 'created' }),
          sandboxConfig: pod.config,
        }),
      );
      const stopped = await startContainer(
        cri,
        pod.podId,
        shellContainer(image, 'exit 0', { name: 'stopped' }),
        pod.config,
      );
      await exited(stopped);
      for (const containerId of [created.containerId, pod.containerId, stopped]) {
        await cri.call('removeContainer', { containerId });
        await failureOf(containerStatus(cri, containerId), {
          code: 'NOT_FOUND',
          message: new RegExp(containerId),
        });
        await cri.call('removeContainer', { containerId });
      }
      const { containers } = await cri.call(
        'listContainers',
        ListContainersRequest.fromPartial({}),
      );
      assert.deepEqual(containers, []);
    });
  }

  it('ends with 143 what dies of the stop signal, and runs two stops of one container as one', async () => {
    const { cri, stack, image } = suite;
    const pod = await runPod(stack, { image, script: 'exec sleep 100' });
    // PID 1 of a namespace ignores what it has no handler for.
    const shared = await runPod(stack, {
      image,
      script: 'exec sleep 100',
      pod: { linux: { securityContext: { namespaceOptions: { pid: 2 } } } },
      container: { linux: { securityContext: { namespaceOptions: { pid: 2 } } } },
    });
    await cri.call('stopContainer', { containerId: shared.containerId, timeout: 20n });
    assert.equal((await containerStatus(cri, shared.containerId)).exitCode, 143);
    const began = performance.now();
    const slow = cri.call('stopContainer', { containerId: pod.containerId, timeout: 60n });
    const quick = cri.call('stopContainer', { containerId: pod.containerId, timeout: 1n });
    await Promise.all([slow, quick]);
    assert.ok(performance.now() - began < 10_000, 'the earlier kill time counts');
    assert.equal((await containerStatus(cri, pod.containerId)).exitCode, 137);
  });

  for (const handler of HOST_KERNEL_HANDLERS) {
    it(`says OOMKilled with 137 when the first process or a child of it is killed for memory under ${handler}`, async () => {
      const { stack, cri, image } = suite;
      const resources = { memoryLimitInBytes: 32n * 1024n * 1024n };
      const hog = 'x=a; while :; do x=$x$x$x$x; done';
      const pod = await runPod(stack, {
        image,
        script: hog,
        handler,
        container: { linux: { resources } },
      });
      const child = await startContainer(
        cri,
        pod.podId,
        shellContainer(image, `sh -c '${hog}'; echo child $?; sleep 0.2; exit 3`, {
          name: 'child',
          linux: { resources },
        }),
        pod.config,
      );
      for (const id of [pod.containerId, child]) {
        const { exitCode, reason } = await exited(id);
        assert.deepEqual([exitCode, reason], [137, 'OOMKilled']);
      }
      const told = await readLog((await containerStatus(cri, child)).logPath);
      assert.ok(
        told.some(({ text }) => text === 'child 137'),
        'the parent lived on',
      );
    });
  }

  it('refuses a second container of the same name and attempt, and takes the next attempt', async () => {
    const { cri, stack, image } = suite;
    const pod = await runPod(stack, { image, script: SLEEP });
    const create = (attempt: number) =>
      cri.call(
        'createContainer',
        CreateContainerRequest.fromPartial({
          podSandboxId: pod.podId,
          config: shellContainer(image, SLEEP, { metadata: { name: 'main', attempt } }),
          sandboxConfig: pod.config,
        }),
      );
    await failureOf(create(0), { code: 'ALREADY_EXISTS', message: new RegExp(pod.containerId) });
    const { containerId } = await create(1);
    assert.notEqual(containerId, pod.containerId);
    assert.deepEqual((await containerStatus(cri, containerId)).metadata, {
      name: 'main',
      attempt: 1,
    });
  });

  it('joins equal calls that run at once, so that each has the same container', async () => {
    const { cri, stack, image } = suite;
    const pod = await runPod(stack, { image, script: SLEEP });
    const request = CreateContainerRequest.fromPartial({
      podSandboxId: pod.podId,
      config: shellContainer(image, SLEEP, { name: 'twin' }),
      sandboxConfig: pod.config,
    });
    const answers = await Promise.all([1, 2, 3].map(() => cri.call('createContainer', request)));
    assert.equal(new Set(answers.map(({ containerId }) => containerId)).size, 1);
    const { containers } = await cri.call('listContainers', ListContainersRequest.fromPartial({}));
    assert.equal(containers.length, 2);
  });

  it('lists containers by id, sandbox, state and labels, and by a shortened id', async () => {
    const { cri, stack, image } = suite;
    const pod = await runPod(stack, { image, script: SLEEP, container: { labels: { app: 'a' } } });
    const other = await runPod(stack, {
      image,
      script: 'exit 0',
      container: { labels: { app: 'b', tier: 'x' } },
    });
    await exited(other.containerId);
    const list = async (
      filter: NonNullable<Parameters<typeof ListContainersRequest.fromPartial>[0]>['filter'],
    ) => {
      const request = ListContainersRequest.fromPartial({ filter });
      return (await cri.call('listContainers', request)).containers.map(({ id }) => id);
    };
    assert.deepEqual((await list({})).sort(), [pod.containerId, other.containerId].sort());
    assert.deepEqual(await list({ id: pod.containerId }), [pod.containerId]);
    assert.deepEqual(await list({ id: pod.containerId.slice(0, 13) }), [pod.containerId]);
    assert.deepEqual(await list({ podSandboxId: other.podId }), [other.containerId]);
    const running = { state: ContainerState.CONTAINER_RUNNING };
    assert.deepEqual(await list({ state: running }), [pod.containerId]);
    assert.deepEqual(await list({ labelSelector: { app: 'b', tier: 'x' } }), [other.containerId]);
    assert.deepEqual(await list({ labelSelector: { app: 'a', tier: 'x' } }), []);
    assert.deepEqual(await list({ state: running, podSandboxId: other.podId }), []);
  });

  for (const handler of HANDLERS) {
    it(`tells pid, OCI spec and network namespace in verbose answers under ${handler}`, async () => {
      const { cri, stack, image } = suite;
      const pod = await runPod(stack, { image, script: SLEEP, handler });
      const { containerId } = pod;
      const { info } = await cri.call('containerStatus', { containerId, verbose: true });
      const container = JSON.parse(info['info'] ?? '') as {
        pid: number;
        sandboxID: string;
        runtimeSpec: { process: { args: string[] }; root: { path: string } };
      };
      assert.equal(container.sandboxID, pod.podId);
      assert.deepEqual(container.runtimeSpec.process.args, ['/bin/sh', '-c', SLEEP]);
      assert.ok(container.pid > 1 && existsSync(`/proc/${container.pid}`));
      const verbose = await cri.call('podSandboxStatus', {
        podSandboxId: pod.podId,
        verbose: true,
      });
      const sandbox = JSON.parse(verbose.info['info'] ?? '') as {
        pid: number;
        runtimeSpec: { linux: { namespaces: { type: string; path?: string }[] } };
        cniResult: { Interfaces: Record<string, { IPConfigs: { IP: string }[] }> };
      };
      const network = sandbox.runtimeSpec.linux.namespaces.find(({ type }) => type === 'network');
      assert.ok(existsSync(network?.path ?? ''), 'the path of the network namespace');
      assert.equal(sandbox.cniResult.Interfaces['eth0']?.IPConfigs[0]?.IP, pod.ip);
      // Inside a Sentry every process is the Sentry's, and that is the sandbox's own.
      assert.equal(sandbox.pid, handler === 'gvisor' ? container.pid : 0);
    });
  }

  it('leaves no descriptor open in the worker after fifty containers of one pod', async () => {
    const { cri, stack, image } = suite;
    const pod = await runPod(stack, { image, script: SLEEP });
    const worker = await stack.pidOf('runtime-runc');
    const descriptors = () => readdirSync(`/proc/${worker}/fd`).length;
    const round = async (name: string) => {
      const id = await startContainer(
        cri,
        pod.podId,
        shellContainer(image, 'exit 0', { name }),
        pod.config,
      );
      await exited(id);
      await cri.call('removeContainer', { containerId: id });
    };
    for (let index = 0; index < 5; index += 1) await round(`warm-${index}`);
    const before = descriptors();
    for (let index = 0; index < 50; index += 1) await round(`one-${index}`);
    await eventually('as few descriptors as before', async () => descriptors() <= before + 2);
    assert.equal((await exec(cri, pod.containerId, ['true'])).exitCode, 0);
  });

  it('refuses to start twice, to start what has ended, and to create in a stopped sandbox', async () => {
    const { cri, stack, image } = suite;
    const pod = await runPod(stack, { image, script: SLEEP });
    const { containerId } = pod;
    const wrong = { code: 'FAILED_PRECONDITION', message: new RegExp(containerId) } as const;
    await failureOf(cri.call('startContainer', { containerId }), wrong);
    await cri.call('stopContainer', { containerId, timeout: 5n });
    await failureOf(cri.call('startContainer', { containerId }), wrong);
    await cri.call('stopPodSandbox', { podSandboxId: pod.podId });
    await failureOf(
      cri.call(
        'createContainer',
        CreateContainerRequest.fromPartial({
          podSandboxId: pod.podId,
          config: shellContainer(image, SLEEP, { name: 'late' }),
          sandboxConfig: await podConfig(stack),
        }),
      ),
      { code: 'FAILED_PRECONDITION', message: new RegExp(pod.podId) },
    );
  });

  it('tells the stop signal of an image as the CRI counts it, and stops its container by it', async () => {
    const { cri, stack, registry } = suite;
    const config = { Env: ['PATH=/bin'], StopSignal: 'SIGRTMIN+20' };
    const built = composeImage({ layers: [writeTar(busyboxLayer())], config });
    const signal = AbortSignal.timeout(30_000);
    const repository = 'test/stop-signal';
    await pushImage(built, ['1'], { registry: registry.url, repository, signal });
    const image = `${registry.host}/${repository}:1`;
    await pullImage(cri, image);
    const script = "trap 'exit 8' 54; while :; do sleep 0.05; done";
    const { containerId } = await runPod(stack, { image, script });
    assert.equal((await containerStatus(cri, containerId)).stopSignal, Signal.SIGRTMAXMINUS10);
    await new Promise((resolve) => setTimeout(resolve, 300));
    await cri.call('stopContainer', { containerId, timeout: 30n });
    assert.equal((await containerStatus(cri, containerId)).exitCode, 8);
  });
});
