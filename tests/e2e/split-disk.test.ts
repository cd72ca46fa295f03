// A node whose containers have a filesystem of their own, apart from the images': what the first answers
// say of both, which is what a kubelet keeps.

import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { join } from 'node:path';
import { ImageFsInfoRequest } from '@cribus/contracts/gen/cri/v1/api.ts';
import { after, before, describe, it } from 'mocha';
import { imagesDirectory } from './harness/image-calls.ts';
import { startTestRegistry, type TestRegistry } from './harness/images.ts';
import { assertNothingLeaked, type HostSnapshot, snapshotHost } from './harness/leaks.ts';
import { pull, runPod } from './harness/pods.ts';
import { eventually, type Stack, startStack } from './harness/stack.ts';

const MIB = 1024n * 1024n;

describe('a disk of their own for containers', () => {
  let host: HostSnapshot;
  let stack: Stack;
  let registry: TestRegistry;
  let disk = '';
  before(async () => {
    host = snapshotHost();
    registry = await startTestRegistry();
    stack = await startStack();
    disk = join(stack.root, 'state', 'handlers');
    await cribus('down');
    execFileSync('mount', ['-t', 'tmpfs', '-o', 'mode=700', 'containers', disk]);
    await cribus('up', '--detach');
  });
  after(async () => {
    await cribus('down', '--pods');
    execFileSync('umount', [disk]);
    await stack.destroy();
    await registry.stop();
    assertNothingLeaked(host);
  });

  async function cribus(...args: readonly string[]): Promise<void> {
    const { code, stdout, stderr } = await stack.cribus(...args);
    assert.equal(code, 0, `${args.join(' ')}: ${stdout}${stderr}`);
  }
  /** The mount point of both, and what is used there. */
  const usage = async () => {
    const info = await stack.cri.call('imageFsInfo', ImageFsInfoRequest.fromPartial({}));
    const [images, containers] = [info.imageFilesystems[0], info.containerFilesystems[0]];
    assert.ok(images?.usedBytes !== undefined && containers?.usedBytes !== undefined);
    return {
      mountpoints: [images.fsId?.mountpoint, containers.fsId?.mountpoint],
      images: images.usedBytes.value,
      containers: containers.usedBytes.value,
    };
  };

  it('is named by the first answer of ImageFsInfo, which has what is used also after a restart', async () => {
    const mountpoints = [imagesDirectory(stack), disk];
    assert.deepEqual((await usage()).mountpoints, mountpoints);
    await pull(stack.cri, registry.busybox);
    const script = 'dd if=/dev/zero of=/big bs=1M count=5; sleep 600';
    await runPod(stack, { image: registry.busybox, script });
    const measured = await eventually(
      'both are measured',
      async () => {
        const now = await usage();
        return now.images > 0n && now.containers >= 5n * MIB ? now : undefined;
      },
      60_000,
    );
    const pid = await stack.pidOf('image-service');
    process.kill(pid, 'SIGKILL');
    const first = await eventually('the first answer of the next', usage, 30_000);
    assert.notEqual(await stack.pidOf('image-service'), pid);
    assert.deepEqual(first, { ...measured, containers: first.containers });
    assert.ok(first.containers >= 5n * MIB, `${first.containers}`);
  });
});
