// Checkpoint and restore with the real criu: a container that counts goes on counting, in its own pod
// and in another one, with its memory and its files.

import assert from 'node:assert/strict';
import { readFileSync, rmSync, statSync } from 'node:fs';
import { buildImage, pushImage } from '@cribus/cli/tour/image.ts';
import {
  CheckpointContainerRequest,
  ContainerState,
  RemoveContainerRequest,
  StatusRequest,
  StopContainerRequest,
} from '@cribus/contracts/gen/cri/v1/api.ts';
import {
  containerStatus,
  exec,
  pull,
  shellContainer,
  startContainer,
} from '@cribus/e2e/harness/pods.ts';
import { eventually, readLog } from '@cribus/e2e/harness/stack.ts';
import { after, afterEach, before, describe, it } from 'mocha';
import {
  cgroupsOf,
  type InstalledNode,
  pidOf,
  provideNode,
  removePods,
  startPod,
} from './installed-node.ts';

const ARCHIVE = '/var/tmp/checkpoint.tar';
const PATIENCE_MS = 120_000;
/** Counts in memory, says each number, and keeps the last one in a file. */
const COUNT = 'i=0; while :; do i=$((i+1)); echo $i; echo $i > /count; sleep 0.5; done';

describe('a checkpoint by the real criu', () => {
  let node: InstalledNode;
  before(async () => {
    node = await provideNode();
  });
  afterEach(async () => {
    await removePods(node);
    rmSync(ARCHIVE, { force: true });
  });
  after(async () => {
    await node?.close();
  });

  const numbers = async (path: string) =>
    (await readLog(path))
      .filter(({ stream }) => stream === 'stdout')
      .map(({ text }) => Number(text));
  const counted = (path: string, least: number) =>
    eventually(
      `a count of ${least}`,
      async () => {
        const said = await numbers(path);
        return (said.at(-1) ?? 0) >= least && said;
      },
      PATIENCE_MS,
    );
  const remove = async (containerId: string) => {
    await node.cri.call(
      'stopContainer',
      StopContainerRequest.fromPartial({ containerId, timeout: 0n }),
    );
    await node.cri.call('removeContainer', RemoveContainerRequest.fromPartial({ containerId }));
  };
  const checkpoint = (containerId: string) =>
    node.cri.call(
      'checkpointContainer',
      CheckpointContainerRequest.fromPartial({ containerId, location: ARCHIVE }),
    );

  it('is advertised, as criu works with this kernel', async () => {
    const { info } = await node.cri.call('status', StatusRequest.fromPartial({ verbose: true }));
    assert.match(info['owners'] ?? '', /"checkpoint": ?"criu \d/);
  });

  it('of a counting container leaves it running, and one made from the archive goes on counting', async () => {
    const pod = await startPod(node, { script: COUNT });
    await counted(pod.logPath, 5);
    await checkpoint(pod.containerId);
    const atCheckpoint = (await numbers(pod.logPath)).at(-1) ?? 0;
    assert.ok(statSync(ARCHIVE).size > 100_000);
    await counted(pod.logPath, atCheckpoint + 3);
    await remove(pod.containerId);
    const config = shellContainer(ARCHIVE, COUNT, { name: 'again' });
    const containerId = await startContainer(node.cri, pod.podId, config, pod.config);
    const [first = 0, second] = await counted(`${pod.config.logDirectory}/again.log`, 8);
    assert.ok(first >= 5 && first <= atCheckpoint + 1, `began at ${first}, not ${atCheckpoint}`);
    assert.equal(second, first + 1);
    const { state } = await containerStatus(node.cri, containerId);
    assert.equal(state, ContainerState.CONTAINER_RUNNING);
    const file = await exec(node.cri, containerId, ['cat', '/count']);
    assert.ok(Number(file.stdout) >= first, file.stderr);
    assert.equal(cgroupsOf(containerId).length, 1);
    assert.match(pidOf(containerId), /^\d+$/, 'it is in a cgroup of its own');
    await remove(containerId);
    assert.deepEqual(cgroupsOf(containerId), []);
  });

  it('becomes a container of another pod, that ends like any other', async () => {
    const pod = await startPod(node, { script: COUNT });
    await counted(pod.logPath, 3);
    await checkpoint(pod.containerId);
    const other = await startPod(node, { podUid: 'd2f0' });
    const config = shellContainer(ARCHIVE, COUNT, { name: 'again' });
    const containerId = await startContainer(node.cri, other.podId, config, other.config);
    const [first = 0] = await counted(`${other.config.logDirectory}/again.log`, 6);
    assert.ok(first >= 3, `began at ${first}`);
    process.kill(Number(pidOf(containerId)), 'SIGKILL');
    const { exitCode } = await eventually(
      'the end',
      async () => {
        const status = await containerStatus(node.cri, containerId);
        return status.state === ContainerState.CONTAINER_EXITED && status;
      },
      PATIENCE_MS,
    );
    assert.equal(exitCode, 137);
    await counted(pod.logPath, ((await numbers(pod.logPath)).at(-1) ?? 0) + 1);
  });

  it('in an image, as others push it, becomes a container that goes on counting', async () => {
    const pod = await startPod(node, { script: COUNT });
    await counted(pod.logPath, 3);
    await checkpoint(pod.containerId);
    await remove(pod.containerId);
    const built = buildImage({
      layers: [readFileSync(ARCHIVE)],
      config: {},
      annotations: { 'org.criu.checkpoint.container.name': 'counts' },
    });
    await pushImage(built, ['1'], {
      registry: node.registry.url,
      repository: 'test/counts',
      signal: AbortSignal.timeout(PATIENCE_MS),
    });
    const image = await pull(node.cri, `${node.registry.host}/test/counts:1`);
    const config = shellContainer(image, COUNT, { name: 'again' });
    await startContainer(node.cri, pod.podId, config, pod.config);
    const [first = 0] = await counted(`${pod.config.logDirectory}/again.log`, 6);
    assert.ok(first >= 3, `began at ${first}`);
  });
});
