// Ends of containers that nobody watched, and ends of those who watch: each is reported once the
// parts are back, with its true code.

import assert from 'node:assert/strict';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import {
  ContainerState,
  type ContainerStatus,
  ExecSyncRequest,
  ListContainersRequest,
  PodSandboxState,
  PodSandboxStatusRequest,
  RemovePodSandboxRequest,
} from '@cribus/contracts/gen/cri/v1/api.ts';
import { after, before, describe, it } from 'mocha';
import { containerStatus, type RunningPod, runPod } from '../e2e/harness/pods.ts';
import { eventually } from '../e2e/harness/stack.ts';
import { pidOfContainer } from './harness/counting-pod.ts';
import {
  type FaultNode,
  killAll,
  PARTS,
  type PartName,
  startFaultNode,
  upAgain,
  upPid,
} from './harness/fault-node.ts';

/** Ends on the word of the host, when a file appears in a volume. */
const WAIT = 'until [ -e /signal/go ]; do sleep 0.05; done;';
/** The kernel stamps a file with the time of its last tick: up to 10 ms ago at 100 Hz. */
const TICK_NS = 10_000_000n;
const EAT_MEMORY = 'x=a; while :; do x=$x$x$x$x; done';

describe('ends of containers', () => {
  let node: FaultNode;
  let volumes = 0;

  before(async () => {
    node = await startFaultNode();
  });
  after(async () => {
    await node?.destroy();
  });

  interface Waiting extends RunningPod {
    readonly exitCode: number;
    readonly reason: string;
    readonly go: () => Promise<void>;
  }

  async function startWaiting(options: {
    readonly handler: string;
    readonly last: string;
    readonly exitCode: number;
    readonly reason: string;
    readonly memoryLimitInBytes?: bigint;
  }): Promise<Waiting> {
    const { handler, last, exitCode, reason, memoryLimitInBytes } = options;
    volumes += 1;
    const hostPath = join(node.stack.root, `signal-${volumes}`);
    await mkdir(hostPath);
    const pod = await runPod(node.stack, {
      image: node.image,
      handler,
      script: `echo up; ${WAIT} ${last}`,
      container: {
        mounts: [{ hostPath, containerPath: '/signal' }],
        linux: memoryLimitInBytes === undefined ? {} : { resources: { memoryLimitInBytes } },
      },
    });
    await eventually(`${handler}: it is up`, async () =>
      readFileSync(pod.logPath, 'utf8').includes('up'),
    );
    return { ...pod, exitCode, reason, go: () => writeFile(join(hostPath, 'go'), '') };
  }

  const startAll = () =>
    Promise.all([
      startWaiting({ handler: 'runc', last: 'exit 7', exitCode: 7, reason: 'Error' }),
      startWaiting({ handler: 'runc', last: 'exit 0', exitCode: 0, reason: 'Completed' }),
      startWaiting({ handler: 'gvisor', last: 'exit 9', exitCode: 9, reason: 'Error' }),
      startWaiting({
        handler: 'runc',
        last: EAT_MEMORY,
        exitCode: 137,
        reason: 'OOMKilled',
        memoryLimitInBytes: 33_554_432n,
      }),
    ]);

  const AWAY: readonly (readonly [string, readonly PartName[]])[] = [
    ['their workers are', ['runtime-runc', 'runtime-gvisor']],
    ['the gateway is', ['cri-gateway']],
    ['all parts are', PARTS],
  ];
  for (const [who, parts] of AWAY) {
    it(`exit codes, and an OOM, of containers that end while ${who} away are reported at once when they are back`, async () => {
      const { stack } = node;
      const pods = await startAll();
      const pids = await Promise.all(parts.map((part) => stack.pidOf(part)));
      killAll([await upPid(stack), ...pids]);
      const beganNs = BigInt(Date.now()) * 1_000_000n - TICK_NS;
      for (const pod of pods) await pod.go();
      await eventually('the monitors have recorded every end', async () =>
        pods.every(({ containerId }) => hasExitFile(stack.root, containerId)),
      );
      const endedNs = BigInt(Date.now() + 1) * 1_000_000n;
      await upAgain(stack);
      const listed = await stack.cri.call('listContainers', ListContainersRequest.fromPartial({}));
      for (const pod of pods) {
        const { state, exitCode, reason, finishedAt } = await containerStatus(
          stack.cri,
          pod.containerId,
        );
        assert.deepEqual(
          { state, exitCode, reason },
          {
            state: ContainerState.CONTAINER_EXITED,
            exitCode: pod.exitCode,
            reason: pod.reason,
          },
        );
        assert.equal(
          listed.containers.find(({ id }) => id === pod.containerId)?.state,
          ContainerState.CONTAINER_EXITED,
        );
        // A Sentry tells no time, only the code.
        const isRunc = pod !== pods[2];
        if (isRunc) assert.ok(finishedAt >= beganNs && finishedAt <= endedNs, `${finishedAt}`);
      }
      await removeAll(pods);
    });
  }

  const removeAll = async (pods: readonly RunningPod[]) => {
    for (const { podId: podSandboxId } of pods) {
      const request = RemovePodSandboxRequest.fromPartial({ podSandboxId });
      await node.stack.cri.call('removePodSandbox', request);
    }
  };

  for (const handler of ['runc', 'gvisor']) {
    it(`a ${handler} container whose monitor is killed is killed too, and has exited with 137, MonitorLost`, async () => {
      const { stack, image } = node;
      const pod = await runPod(stack, { image, handler, script: 'sleep 1000' });
      const pid = await pidOfContainer(stack, pod.containerId);
      killAll([monitorOf(pod.containerId)]);
      const status = await untilExited(pod.containerId);
      assert.deepEqual(
        { exitCode: status.exitCode, reason: status.reason },
        { exitCode: 137, reason: 'MonitorLost' },
      );
      if (handler === 'runc') {
        await eventually('its process is gone', async () => !existsSync(`/proc/${pid}`));
      }
      assert.equal(await sandboxState(pod), PodSandboxState.SANDBOX_READY);
      await removeAll([pod]);
    });
  }

  it("a pod whose Sentry is killed is not ready, and its containers have exited with 137; another pod's go on", async () => {
    const { stack, image } = node;
    const [victim, other] = await Promise.all(
      [1, 2].map(() => runPod(stack, { image, handler: 'gvisor', script: 'sleep 1000' })),
    );
    assert.ok(victim !== undefined && other !== undefined);
    killAll([await pidOfContainer(stack, victim.containerId)]);
    assert.equal((await untilExited(victim.containerId)).exitCode, 137);
    await eventually(
      'the sandbox is not ready',
      async () => (await sandboxState(victim)) === PodSandboxState.SANDBOX_NOTREADY,
    );
    assert.equal(await sandboxState(other), PodSandboxState.SANDBOX_READY);
    const answer = await stack.cri.call(
      'execSync',
      ExecSyncRequest.fromPartial({ containerId: other.containerId, cmd: ['true'], timeout: 5n }),
    );
    assert.equal(answer.exitCode, 0);
    await removeAll([victim, other]);
  });

  it('a pod whose Sentry is killed while all parts are away is not ready when they are back', async () => {
    const { stack, image } = node;
    const pod = await runPod(stack, { image, handler: 'gvisor', script: 'sleep 1000' });
    const sentry = await pidOfContainer(stack, pod.containerId);
    const pids = await Promise.all(PARTS.map((part) => stack.pidOf(part)));
    killAll([await upPid(stack), ...pids, sentry]);
    await upAgain(stack);
    assert.equal((await untilExited(pod.containerId)).exitCode, 137);
    await eventually(
      'the sandbox is not ready',
      async () => (await sandboxState(pod)) === PodSandboxState.SANDBOX_NOTREADY,
    );
    await removeAll([pod]);
  });

  it('a pod whose shared init is killed is not ready', async () => {
    const { stack, image } = node;
    const pod = await runPod(stack, {
      image,
      handler: 'runc',
      script: 'sleep 1000',
      pod: { linux: { securityContext: { namespaceOptions: { pid: 0 } } } },
    });
    const { info } = await stack.cri.call(
      'podSandboxStatus',
      PodSandboxStatusRequest.fromPartial({ podSandboxId: pod.podId, verbose: true }),
    );
    const { pid } = JSON.parse(info['info'] ?? '{}') as { pid: number };
    assert.match(readFileSync(`/proc/${pid}/cmdline`, 'utf8'), /catatonit/);
    killAll([pid]);
    await eventually(
      'the sandbox is not ready',
      async () => (await sandboxState(pod)) === PodSandboxState.SANDBOX_NOTREADY,
    );
    // The kernel ends every process of a PID namespace with its init.
    assert.equal((await untilExited(pod.containerId)).exitCode, 137);
    await removeAll([pod]);
  });

  const untilExited = (containerId: string): Promise<ContainerStatus> =>
    eventually('the container has exited', async () => {
      const status = await containerStatus(node.stack.cri, containerId);
      return status.state === ContainerState.CONTAINER_EXITED ? status : undefined;
    });

  const sandboxState = async ({ podId }: RunningPod) => {
    const request = PodSandboxStatusRequest.fromPartial({ podSandboxId: podId });
    return (await node.stack.cri.call('podSandboxStatus', request)).status?.state;
  };
});

function hasExitFile(root: string, containerId: string): boolean {
  const handlers = join(root, 'state', 'handlers');
  return readdirSync(handlers).some((handler) =>
    existsSync(join(handlers, handler, 'exits', containerId)),
  );
}

function monitorOf(containerId: string): number {
  const pid = readdirSync('/proc').find((name) => {
    if (!/^\d+$/.test(name) || !existsSync(`/proc/${name}/cmdline`)) return false;
    const argv = readFileSync(`/proc/${name}/cmdline`, 'utf8').split('\0');
    return argv[0] === 'conmon' && argv[argv.indexOf('-c') + 1] === containerId;
  });
  assert.ok(pid !== undefined, `container ${containerId} has no monitor`);
  return Number(pid);
}
