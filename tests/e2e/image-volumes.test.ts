// Images mounted as volumes, by every handler: what they show, what is refused, and that their layers
// stay as long as a container has them, whatever happens around it.

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { buildImage, pushImage } from '@cribus/cli/tour/image.ts';
import type { TarEntry } from '@cribus/cli/tour/tar-writer.ts';
import {
  CreateContainerRequest,
  ListContainersRequest,
  type Mount,
  MountPropagation,
} from '@cribus/contracts/gen/cri/v1/api.ts';
import { before, describe, it } from 'mocha';
import {
  failureOf,
  imageStatus,
  pullImage,
  type Refusal,
  removeImage,
  storedImages,
} from './harness/image-calls.ts';
import { containerStatus, exec, runPod, shellContainer } from './harness/pods.ts';
import { eventually } from './harness/stack.ts';
import { HANDLERS, stackSuite } from './harness/suite.ts';

const SLEEP = "trap 'exit 0' TERM; while :; do sleep 0.05; done";
const SERVICES = [
  'image-service',
  'sandbox-manager',
  'runtime-runc',
  'runtime-gvisor',
  'cri-gateway',
];

const file = (path: string, text: string, mode = 0o644): TarEntry => ({
  kind: 'file',
  path,
  mode,
  data: Buffer.from(text),
});
const directory = (path: string): TarEntry => ({ kind: 'directory', path, mode: 0o755 });
const link = (path: string, target: string): TarEntry => ({ kind: 'symlink', path, target });

/** The upper layer replaces a file of the lower one and deletes another. */
const LOWER = [
  directory('data'),
  directory('data/deep'),
  file('data/model.txt', 'first\n'),
  file('data/old.txt', 'old\n'),
  file('data/deep/leaf.txt', 'leaf\n'),
  file('run.sh', '#!/bin/sh\necho ran from the volume\n', 0o755),
  link('current', '/data/deep'),
  link('above', '../../../../../../../../data'),
  link('host', '/etc'),
  link('loop', 'loop'),
];
const UPPER = [file('data/model.txt', 'second\n'), file('data/.wh.old.txt', '')];

describe('images as volumes', () => {
  const suite = stackSuite();
  let name = '';
  let id = '';
  let digest = '';
  before(async () => {
    name = await push('data', [LOWER, UPPER]);
    id = await pullImage(suite.cri, name);
    digest = (await imageStatus(suite.cri, id))?.repoDigests[0] ?? '';
  });

  async function push(repository: string, layers: readonly (readonly TarEntry[])[]) {
    const { url, host } = suite.registry;
    const signal = AbortSignal.timeout(30_000);
    const image = buildImage({ layers, config: {} });
    await pushImage(image, ['1'], { registry: url, repository: `test/${repository}`, signal });
    return `${host}/test/${repository}:1`;
  }
  const volume = (image: string, containerPath: string, more: Partial<Mount> = {}) => ({
    containerPath,
    readonly: true,
    image: { image },
    ...more,
  });
  const textOf = async (containerId: string, path: string) =>
    (await exec(suite.cri, containerId, ['cat', path])).stdout;

  for (const handler of HANDLERS) {
    it(`${handler} shows an image by its id, tag and digest, whole and by sub path, with its layers merged`, async () => {
      const { stack, cri, image } = suite;
      const mounts = [
        volume(id, '/by-id'),
        volume(name, '/by-tag', { imageSubPath: 'data' }),
        volume(digest, '/by-digest', { imageSubPath: 'data/deep/' }),
        volume(id, '/by-link', { imageSubPath: 'current', recursiveReadOnly: true }),
      ];
      const pod = await runPod(stack, { image, script: SLEEP, handler, container: { mounts } });
      assert.equal(await textOf(pod.containerId, '/by-id/data/model.txt'), 'second\n');
      assert.equal(await textOf(pod.containerId, '/by-tag/model.txt'), 'second\n');
      for (const path of ['/by-digest/leaf.txt', '/by-link/leaf.txt'])
        assert.equal(await textOf(pod.containerId, path), 'leaf\n');
      assert.equal(
        (await exec(cri, pod.containerId, ['ls', '/by-tag'])).stdout,
        'deep\nmodel.txt\n',
        'what the upper layer deletes is gone',
      );
      const { mounts: shown } = await containerStatus(cri, pod.containerId);
      assert.deepEqual(
        shown.map((mount) => [
          mount.containerPath,
          mount.hostPath,
          mount.readonly,
          mount.recursiveReadOnly,
          mount.image?.image,
          mount.image?.imageRef,
          mount.imageSubPath,
        ]),
        mounts.map((mount) => [
          mount.containerPath,
          '',
          true,
          mount.recursiveReadOnly ?? false,
          mount.image?.image,
          id,
          mount.imageSubPath ?? '',
        ]),
      );
    });

    it(`${handler} lets nobody write to an image volume, not even a privileged container, and runs its programs`, async () => {
      const { stack, cri, image } = suite;
      const single = await pullImage(cri, await push('single', [[file('one.txt', 'one\n')]]));
      const privileged = handler === 'gvisor' ? {} : { securityContext: { privileged: true } };
      const pod = await runPod(stack, {
        image,
        script: SLEEP,
        handler,
        pod: { linux: privileged },
        container: { mounts: [volume(id, '/v'), volume(single, '/one')], linux: privileged },
      });
      for (const path of ['/v/new', '/v/data/model.txt', '/one/one.txt', '/one/new']) {
        const { exitCode, stderr } = await exec(cri, pod.containerId, [
          'sh',
          '-c',
          `echo x >> ${path}`,
        ]);
        assert.notEqual(exitCode, 0, path);
        assert.match(stderr, /Read-only file system/);
      }
      const ran = await exec(cri, pod.containerId, ['/v/run.sh']);
      assert.equal(ran.stdout, 'ran from the volume\n', ran.stderr);
      assert.equal(await textOf(pod.containerId, '/one/one.txt'), 'one\n');
    });

    it(`${handler} refuses absent images, absent and escaping sub paths and what is no read-only image mount, and leaves nothing`, async () => {
      const { stack, cri, image } = suite;
      const { podId, config: sandboxConfig } = await runPod(stack, {
        image,
        script: SLEEP,
        handler,
      });
      const refused = async (mount: ReturnType<typeof volume>, refusal: Refusal) => {
        const config = shellContainer(image, SLEEP, { name: 'refused', mounts: [mount] });
        const request = { podSandboxId: podId, config, sandboxConfig };
        await failureOf(
          cri.call('createContainer', CreateContainerRequest.fromPartial(request)),
          refusal,
        );
      };
      await refused(volume('absent.example/no/image:1', '/v'), {
        code: 'NOT_FOUND',
        message: /ImageVolumeMountFailed: image "absent\.example\/no\/image:1" is not here/,
      });
      for (const imageSubPath of ['missing', 'data/missing', 'data/model.txt/below', 'loop']) {
        await refused(volume(id, '/v', { imageSubPath }), {
          code: imageSubPath === 'loop' ? 'INVALID_ARGUMENT' : 'UNKNOWN',
          message: imageSubPath === 'loop' ? /symlinks/ : /ImageVolumeMountFailed: sub path/,
        });
      }
      await refused(volume(id, '/v', { imageSubPath: 'data/model.txt' }), {
        code: 'UNKNOWN',
        message: /ImageVolumeMountFailed: sub path "data\/model.txt" is not a directory/,
      });
      // The image has no /etc, and the one of the host must not be seen in its place.
      await refused(volume(id, '/v', { imageSubPath: 'host' }), {
        code: 'UNKNOWN',
        message: /sub path "host" does not exist in image/,
      });
      for (const mount of [
        volume(id, '/v', { imageSubPath: '../../../../etc' }),
        volume(id, '/v', { imageSubPath: '/data' }),
        volume(id, '/v', { readonly: false }),
        volume(id, '/v', { hostPath: '/tmp' }),
        volume(id, '/v', { propagation: MountPropagation.PROPAGATION_BIDIRECTIONAL }),
      ]) {
        await refused(mount, { code: 'INVALID_ARGUMENT', message: /image/ });
      }
      const { containers } = await cri.call(
        'listContainers',
        ListContainersRequest.fromPartial({}),
      );
      assert.equal(containers.length, 1);
      const mountPoints = readFileSync('/proc/self/mountinfo', 'utf8');
      assert.doesNotMatch(mountPoints, new RegExp(`${stack.root}\\S*/volumes/`));
    });
  }

  it('an image volume is unmounted when its container has ended', async () => {
    const { stack, image } = suite;
    const mounts = [volume(id, '/v')];
    const { containerId } = await runPod(stack, { image, script: SLEEP, container: { mounts } });
    const mounted = () => readFileSync('/proc/self/mountinfo', 'utf8').includes('/volumes/');
    assert.equal(mounted(), true);
    await suite.cri.call('stopContainer', { containerId, timeout: 5n });
    await eventually('its volume is unmounted', async () => !mounted());
  });

  it('a symlink above the root of an image is meant from its root, as in a chroot', async () => {
    const { stack, image } = suite;
    const mounts = [volume(id, '/v', { imageSubPath: 'above' })];
    const pod = await runPod(stack, { image, script: SLEEP, container: { mounts } });
    assert.equal(await textOf(pod.containerId, '/v/model.txt'), 'second\n');
  });

  it('an image volume outlives RemoveImage and kill -9 of every service, and its layers go with its last container', async () => {
    const { stack, cri, image } = suite;
    const layersBefore = (await storedImages(stack)).layers;
    const kept = await push('kept', [[file('kept.txt', 'kept\n')], [file('more.txt', 'more\n')]]);
    const keptId = await pullImage(cri, kept);
    const mounts = [volume(keptId, '/v')];
    const pods = await Promise.all(
      ['runc', 'gvisor'].map((handler) =>
        runPod(stack, { image, script: SLEEP, handler, container: { mounts } }),
      ),
    );
    await removeImage(cri, kept);
    assert.equal(await imageStatus(cri, keptId), undefined);
    const before = (await stack.status()).parts.filter(({ name }) => SERVICES.includes(name));
    assert.equal(before.length, SERVICES.length);
    for (const { pid } of before) process.kill(pid, 'SIGKILL');
    await eventually('the services are there again', async () => {
      const { parts } = await stack.status();
      return before.every(({ name, pid }) =>
        parts.some((part) => part.name === name && part.pid !== pid && part.state === 'running'),
      );
    });
    for (const { containerId } of pods) {
      const kept = await eventually('its text', () => textOf(containerId, '/v/kept.txt'));
      assert.equal(kept, 'kept\n');
      assert.equal(await textOf(containerId, '/v/more.txt'), 'more\n');
    }
    assert.equal((await storedImages(stack)).layers.length, layersBefore.length + 2);
    const [first, second] = pods;
    await cri.call('removeContainer', { containerId: first?.containerId ?? '' });
    assert.equal(await textOf(second?.containerId ?? '', '/v/kept.txt'), 'kept\n');
    assert.equal((await storedImages(stack)).layers.length, layersBefore.length + 2);
    await cri.call('removeContainer', { containerId: second?.containerId ?? '' });
    await eventually('its layers are collected', async () => {
      assert.deepEqual((await storedImages(stack)).layers, layersBefore);
      return true;
    });
  });
});
