// Volumes that an image declares (`VOLUME`): writable directories of the container's own, also beside a
// read-only root filesystem, with what the image has there.

import assert from 'node:assert/strict';
import { pushImage } from '@cribus/cli/tour/image.ts';
import { writeTar } from '@cribus/cli/tour/tar-writer.ts';
import { NamespaceMode } from '@cribus/contracts/gen/cri/v1/api.ts';
import { before, describe, it } from 'mocha';
import { archive } from './harness/archive.ts';
import { composeImage } from './harness/compose-image.ts';
import { pullImage } from './harness/image-calls.ts';
import { busyboxLayer } from './harness/images.ts';
import { containerStatus, exec, runPod } from './harness/pods.ts';
import { HANDLERS, HOST_KERNEL_HANDLERS, stackSuite } from './harness/suite.ts';

const SLEEP = "trap 'exit 0' TERM; while :; do sleep 0.05; done";
const IDS = [{ containerId: 0, hostId: 200_000, length: 65_536 }];

const LAYER = archive([
  { name: 'data/', mode: 0o1770, uid: 1000, gid: 2000 },
  { name: 'data/seed', mode: 0o640, data: 'seed\n', uid: 1000, gid: 1000 },
  { name: 'data/away', type: '2', linkName: '../../../../../../../etc/hostname' },
  { name: 'linked', type: '2', linkName: '/../../data' },
  { name: 'plain', data: 'a file\n' },
]);

describe('volumes that an image declares', () => {
  const suite = stackSuite();
  let image = '';
  before(async () => {
    const { registry, cri } = suite;
    const paths = ['/data', '/absent/deep', '/linked', '/plain', '/sys/fs/cgroup', 'relative'];
    const volumes = Object.fromEntries(paths.map((path) => [path, {}]));
    const built = composeImage({
      layers: [writeTar(busyboxLayer()), LAYER],
      config: { Env: ['PATH=/bin'], Volumes: volumes },
    });
    const signal = AbortSignal.timeout(30_000);
    await pushImage(built, ['1'], { registry: registry.url, repository: 'test/volumes', signal });
    image = `${registry.host}/test/volumes:1`;
    await pullImage(cri, image);
  });
  const shell = async (containerId: string, script: string) => {
    const { stdout, stderr } = await exec(suite.cri, containerId, ['sh', '-c', script]);
    return `${stdout}${stderr}`.trimEnd();
  };

  for (const handler of HANDLERS) {
    it(`are writable beside a read-only root filesystem and hold what the image has there, under ${handler}`, async () => {
      const container = { linux: { securityContext: { readonlyRootfs: true } } };
      const options = { image, script: SLEEP, handler, container };
      const one = await runPod(suite.stack, options);
      const other = await runPod(suite.stack, options);
      const look = await shell(
        one.containerId,
        "stat -c '%a %u %g' /data /data/seed; cat /data/seed; readlink /data/away; stat -c '%a %u' /absent/deep; cat /plain",
      );
      const expected = '1770 1000 2000\n640 1000 1000\nseed\n../../../../../../../etc/hostname';
      assert.equal(look, `${expected}\n755 0\na file`);
      const write =
        'for at in /data /absent/deep /linked; do echo mine > $at/new; done; cat /data/new; touch /new';
      assert.match(await shell(one.containerId, write), /^mine\n.*Read-only file system$/);
      assert.equal(
        await shell(other.containerId, 'ls /data /absent/deep'),
        [...['/absent/deep:', '', '/data:', 'away', 'seed']].join('\n'),
        'no other container sees it',
      );
      const { mounts } = await containerStatus(suite.cri, one.containerId);
      assert.deepEqual(mounts, [], 'the kubelet asked for no mount');
    });

    it(`give way to a volume of the pod, under ${handler}`, async () => {
      // A symlink of the image, to where one is declared.
      const mounts = [{ containerPath: '/linked', hostPath: suite.stack.root, readonly: true }];
      const pod = await runPod(suite.stack, {
        image,
        script: SLEEP,
        handler,
        container: { mounts },
      });
      assert.match(await shell(pod.containerId, 'ls /data'), /^pod-logs$/m);
      assert.equal(await shell(pod.containerId, 'touch /absent/deep/x && ls /absent/deep'), 'x');
    });
  }

  for (const handler of HOST_KERNEL_HANDLERS) {
    it(`belong to the root of a pod with a user namespace, under ${handler}`, async () => {
      const linux = {
        securityContext: {
          namespaceOptions: {
            pid: NamespaceMode.CONTAINER,
            usernsOptions: { mode: NamespaceMode.POD, uids: IDS, gids: IDS },
          },
        },
      };
      const options = { image, script: SLEEP, handler, pod: { linux }, container: { linux } };
      const { containerId } = await runPod(suite.stack, options);
      const script =
        "stat -c '%u %g' /data /data/seed /absent/deep; echo mine > /absent/deep/new && stat -c %u /absent/deep/new";
      assert.equal(await shell(containerId, script), '1000 2000\n1000 1000\n0 0\n0');
    });
  }
});
