// Pods with a user namespace: whose root is another user of the host, for the files of the image, the
// volumes and everything that the pod shares.

import assert from 'node:assert/strict';
import {
  chmodSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { NamespaceMode } from '@cribus/contracts/gen/cri/v1/api.ts';
import { describe, it } from 'mocha';
import { containerStatus, exec, runPod, shellContainer, startContainer } from './harness/pods.ts';
import { HOST_KERNEL_HANDLERS, stackSuite } from './harness/suite.ts';

const SLEEP = "trap 'exit 0' TERM; while :; do sleep 0.05; done";
/** As the kubelet hands them out: beyond the signed 32 bits. */
const HOST_ID = 4_145_283_072;
const IDS = [{ containerId: 0, hostId: HOST_ID, length: 65_536 }];
const MAPPED = { uidMappings: IDS, gidMappings: IDS };
const { POD, NODE, CONTAINER } = NamespaceMode;

type Options = Parameters<typeof runPod>[1];

for (const handler of HOST_KERNEL_HANDLERS) {
  describe(`user namespaces under ${handler}`, () => {
    const suite = stackSuite();
    const options = (more: object = {}) => ({
      linux: {
        securityContext: {
          namespaceOptions: {
            pid: CONTAINER,
            usernsOptions: { mode: POD, uids: IDS, gids: IDS },
            ...more,
          },
        },
      },
    });
    const run = (more: Partial<Options> = {}) =>
      runPod(suite.stack, {
        image: suite.image,
        script: SLEEP,
        handler,
        pod: options(),
        container: options(),
        ...more,
      });
    const shell = async (containerId: string, script: string) => {
      const { stdout, stderr } = await exec(suite.cri, containerId, ['sh', '-c', script]);
      return (stdout + stderr).trim().replaceAll(/[ \t]+/g, ' ');
    };

    it(`makes root of a pod another user of the host, under ${handler}`, async () => {
      const { containerId, podId } = await run();
      assert.equal(
        await shell(containerId, 'cat /proc/self/uid_map /proc/self/gid_map; id -u'),
        `0 ${HOST_ID} 65536\n 0 ${HOST_ID} 65536\n0`,
      );
      const { info } = await suite.cri.call('containerStatus', { containerId, verbose: true });
      const { pid } = JSON.parse(info['info'] ?? '') as { pid: number };
      assert.equal(statSync(`/proc/${pid}`).uid, HOST_ID);
      assert.equal(await shell(containerId, 'stat -c %u:%g / /bin /bin/sh'), '0:0\n0:0\n0:0');
      assert.equal(await shell(containerId, 'echo 1 >> /etc/passwd; touch /x; stat -c %u /x'), '0');
      assert.ok(podId);
    });
  });
}
