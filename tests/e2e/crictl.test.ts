// The commands that people type, in their order. Where crictl is on the PATH the unmodified program is
// run; the calls behind its commands, with what it prints of their answers, are made in any case.

import assert from 'node:assert/strict';
import { existsSync, mkdirSync, writeFileSync } from 'node:fs';
import { delimiter, join } from 'node:path';
import {
  ContainerState,
  CreateContainerRequest,
  ListContainersRequest as ListContainers,
  type ListContainersRequest,
  ListPodSandboxRequest,
  PodSandboxState,
  RunPodSandboxRequest,
} from '@cribus/contracts/gen/cri/v1/api.ts';
import { before, describe, it } from 'mocha';
import {
  imageFilesystem,
  imageStatus,
  listImages,
  pullImage,
  removeImage,
} from './harness/image-calls.ts';
import { containerStatus, exec, podConfig, shellContainer } from './harness/pods.ts';
import { eventually, readLog, runCommand } from './harness/stack.ts';
import { stackSuite } from './harness/suite.ts';

const LABELS = { app: 'nginx', 'io.kubernetes.pod.namespace': 'default' };
const ANNOTATIONS = { 'kubernetes.io/config.source': 'api', note: 'a "quoted" one' };
const SCRIPT = "trap 'exit 0' TERM; echo hello; while :; do sleep 0.05; done";
const crictl = (process.env['PATH'] ?? '')
  .split(delimiter)
  .map((directory) => join(directory, 'crictl'))
  .find((path) => existsSync(path));

describe('the commands of crictl', () => {
  const suite = stackSuite();

  for (const handler of ['', 'gvisor']) {
    const name = handler === '' ? 'the default handler' : handler;

    it(`answers the calls behind every command of crictl, in order, for ${name}`, async () => {
      const { cri, stack, image } = suite;
      // info, version, pull, images, inspecti, imagefsinfo
      const { status } = await cri.call('status', { verbose: true });
      assert.ok(status?.conditions.every((condition) => condition.status));
      assert.equal((await cri.call('version', { version: '' })).runtimeName, 'cribus');
      const id = await pullImage(cri, image);
      assert.deepEqual(
        (await listImages(cri)).map((one) => [one.id, one.repoTags]),
        [[id, [image]]],
      );
      assert.equal((await imageStatus(cri, image))?.id, id);
      await eventually('the layers are measured', async () => {
        const { usedBytes } = await imageFilesystem(cri);
        return (usedBytes?.value ?? 0n) > 0n;
      });
      // runp, pods, inspectp
      const config = await podConfig(stack, {
        name: 'nginx',
        labels: LABELS,
        annotations: ANNOTATIONS,
      });
      const { podSandboxId } = await cri.call(
        'runPodSandbox',
        RunPodSandboxRequest.fromPartial({ config, runtimeHandler: handler }),
      );
      const { items } = await cri.call('listPodSandbox', ListPodSandboxRequest.fromPartial({}));
      assert.equal(items.length, 1);
      const [item] = items;
      assert.deepEqual(
        [item?.id, item?.metadata, item?.state, item?.labels, item?.annotations],
        [podSandboxId, config.metadata, PodSandboxState.SANDBOX_READY, LABELS, ANNOTATIONS],
      );
      assert.ok((item?.createdAt ?? 0n) > 0n);
      assert.equal(item?.runtimeHandler, handler);
      const inspected = await cri.call('podSandboxStatus', { podSandboxId, verbose: true });
      assert.ok('pid' in (JSON.parse(inspected.info['info'] ?? '') as object));
      // create, start, ps, inspect, logs, exec -s
      const container = shellContainer(image, SCRIPT, { labels: LABELS });
      const { containerId } = await cri.call(
        'createContainer',
        CreateContainerRequest.fromPartial({
          podSandboxId,
          config: container,
          sandboxConfig: config,
        }),
      );
      await cri.call('startContainer', { containerId });
      const request: ListContainersRequest = ListContainers.fromPartial({
        filter: { state: { state: ContainerState.CONTAINER_RUNNING } },
      });
      const { containers } = await cri.call('listContainers', request);
      assert.deepEqual(
        containers.map((one) => [one.id, one.podSandboxId, one.metadata?.name]),
        [[containerId, podSandboxId, 'main']],
      );
      const { logPath } = await containerStatus(cri, containerId);
      await eventually('the log', async () => (await readLog(logPath))[0]?.text === 'hello');
      assert.deepEqual(await exec(cri, containerId, ['echo', 'inside']), {
        exitCode: 0,
        stdout: 'inside\n',
        stderr: '',
      });
      // stop, rm, stopp, rmp, rmi
      await cri.call('stopContainer', { containerId, timeout: 10n });
      await cri.call('removeContainer', { containerId });
      await cri.call('stopPodSandbox', { podSandboxId });
      await cri.call('removePodSandbox', { podSandboxId });
      await removeImage(cri, image);
      assert.deepEqual(await listImages(cri), []);
      await pullImage(cri, image);
    });
  }

  if (crictl === undefined) return;
  let directory = '';
  before(() => {
    directory = join(suite.stack.root, 'crictl');
    mkdirSync(directory);
    writeFileSync(join(directory, 'crictl.yaml'), '');
  });
  const run = async (...args: readonly string[]): Promise<string> => {
    const { endpoint } = suite.cri;
    const front = ['--config', join(directory, 'crictl.yaml'), '--timeout', '30s'];
    const ends = ['--runtime-endpoint', endpoint, '--image-endpoint', endpoint];
    const result = await runCommand(crictl, [...front, ...ends, ...args]);
    assert.equal(result.code, 0, `crictl ${args.join(' ')}: ${result.stderr}`);
    return result.stdout.trim();
  };
  const write = (file: string, value: object): string => {
    writeFileSync(join(directory, file), JSON.stringify(value));
    return join(directory, file);
  };

  for (const handler of ['', 'gvisor']) {
    const name = handler === '' ? 'the default handler' : handler;

    it(`works with an unmodified crictl, command by command, for ${name}`, async () => {
      const { image, stack } = suite;
      const logs = join(stack.root, 'pod-logs', 'crictl');
      mkdirSync(logs, { recursive: true });
      assert.match(await run('info'), /"RuntimeReady"/);
      assert.match(await run('version'), /RuntimeName: +cribus/);
      assert.match(await run('pull', image), /Image is up to date/);
      assert.match(await run('images'), /test\/busybox/);
      assert.match(await run('inspecti', image), /"repoTags"/);
      assert.match(await run('imagefsinfo'), /"usedBytes"/);
      const pod = write('pod.json', {
        metadata: { name: 'nginx', uid: 'uid-1', namespace: 'default', attempt: 1 },
        log_directory: logs,
        labels: LABELS,
        annotations: ANNOTATIONS,
        linux: {},
      });
      const container = write('container.json', {
        metadata: { name: 'web' },
        image: { image },
        command: ['/bin/sh', '-c', SCRIPT],
        log_path: 'web.log',
        linux: {},
      });
      const podId = await run('runp', ...(handler === '' ? [] : ['-r', handler]), pod);
      const verbose = await run('pods', '--name', 'nginx', '-v');
      for (const line of [
        `ID: ${podId}`,
        'Name: nginx',
        'UID: uid-1',
        'Namespace: default',
        'Attempt: 1',
        'Status: Ready',
        'app -> nginx',
        'io.kubernetes.pod.namespace -> default',
        'kubernetes.io/config.source -> api',
        'note -> a "quoted" one',
      ]) {
        assert.ok(verbose.includes(line), `${line} in\n${verbose}`);
      }
      assert.match(verbose, /^Created: .*\d/m);
      assert.equal(JSON.parse(await run('inspectp', podId)).status.id, podId);
      const containerId = await run('create', podId, container, pod);
      assert.equal(await run('start', containerId), containerId);
      assert.match(await run('ps'), /Running +web/);
      const inspected = JSON.parse(await run('inspect', containerId)) as { info: { pid: number } };
      assert.ok(inspected.info.pid > 1);
      await eventually('the log', async () => (await run('logs', containerId)) === 'hello');
      assert.equal(await run('exec', '-s', containerId, 'echo', 'inside'), 'inside');
      assert.equal(await run('stop', '-t', '10', containerId), containerId);
      assert.equal(await run('rm', containerId), containerId);
      assert.match(await run('stopp', podId), /Stopped sandbox/);
      assert.match(await run('rmp', podId), /Removed sandbox/);
      assert.match(await run('rmi', image), /Deleted: .*busybox/);
      await pullImage(suite.cri, image);
    });
  }
});
