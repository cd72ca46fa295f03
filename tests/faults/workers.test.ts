// Workers come and go on a live node: a standby takes over, one that starts later is advertised, one
// that is stopped or hangs makes its handler unavailable and nothing else.

import assert from 'node:assert/strict';
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import {
  ContainerState,
  CreateContainerRequest,
  ListContainersRequest,
  RemovePodSandboxRequest,
  RunPodSandboxRequest,
  StatusRequest,
} from '@cribus/contracts/gen/cri/v1/api.ts';
import { after, before, describe, it } from 'mocha';
import { exec, podConfig, runPod, shellContainer } from '../e2e/harness/pods.ts';
import { eventually } from '../e2e/harness/stack.ts';
import { openStreams } from '../e2e/harness/streams.ts';
import { commandOf, commandOfPid, type ServiceByHand, startByHand } from './harness/by-hand.ts';
import {
  assertLogIsWhole,
  assertSameProcess,
  type CountingPod,
  startCountingPod,
} from './harness/counting-pod.ts';
import {
  type FaultNode,
  killAll,
  recoveryMs,
  startFaultNode,
  upPid,
} from './harness/fault-node.ts';
import { observe } from './harness/observer.ts';

describe('workers that come and go', () => {
  let node: FaultNode;
  let pods: readonly CountingPod[];
  const byHand: ServiceByHand[] = [];

  before(async () => {
    node = await startFaultNode();
    const { stack, image } = node;
    pods = await Promise.all(
      ['runc', 'gvisor'].map((handler) => startCountingPod(stack, { image, handler })),
    );
  });
  after(async () => {
    for (const service of byHand) await service.end('SIGKILL');
    await node?.destroy();
  });

  const podOf = (handler: string): CountingPod => {
    const pod = pods.find((one) => one.handler === handler);
    assert.ok(pod !== undefined);
    return pod;
  };
  const advertised = async () => {
    const { runtimeHandlers } = await node.stack.cri.call('status', StatusRequest.fromPartial({}));
    return runtimeHandlers.map(({ name }) => name).filter((name) => name !== '');
  };
  const execWorks = async (handler: string) => {
    const { stdout } = await exec(node.stack.cri, podOf(handler).containerId, ['echo', 'well'], 5);
    return stdout === 'well\n';
  };
  const untouched = async () => {
    for (const pod of pods) {
      await assertSameProcess(node.stack, pod);
      await assertLogIsWhole(pod);
    }
  };

  it('a second instance of a worker waits as a standby, serves nothing, and takes over when the first is killed', async () => {
    const { stack } = node;
    // Nobody starts the first one again.
    killAll([await upPid(stack)]);
    const first = await stack.pidOf('runtime-runc');
    const standby = startByHand(stack, await commandOf(stack, 'runtime-runc'));
    byHand.push(standby);
    await eventually('it says that it waits', async () =>
      (await readFile(join(stack.root, 'log', 'runtime-runc.log'), 'utf8')).includes(
        'waiting as its standby',
      ),
    );
    assert.equal(await servingPid(node, 'runtime.runc'), first);
    const observer = observe(stack.cri.endpoint, pods);
    killAll([first]);
    const sinceMs = performance.now();
    await eventually('exec works again', () => execWorks('runc'), recoveryMs());
    console.log(`      ${Math.round(performance.now() - sinceMs)} ms`);
    assert.equal(await servingPid(node, 'runtime.runc'), standby.pid);
    const { podId } = await runPod(stack, { image: node.image, script: 'sleep 1000' });
    assert.notEqual(podId, '');
    assert.deepEqual((await observer.stop()).wrong, []);
    await untouched();
  });

  it('a worker that is stopped makes its handler unavailable with an error that says so, and its containers stay listed', async () => {
    const { stack, image } = node;
    const observer = observe(stack.cri.endpoint, pods);
    const command = await commandOf(stack, 'runtime-gvisor');
    process.kill(await stack.pidOf('runtime-gvisor'), 'SIGTERM');
    await eventually(
      'the handler is not advertised any more',
      async () => !(await advertised()).includes('gvisor'),
    );
    const unavailable = /14 UNAVAILABLE: handler "gvisor" is unavailable: its worker is stopping/;
    const config = await podConfig(stack);
    const { podId, containerId } = podOf('gvisor');
    const refused = [
      stack.cri.call(
        'runPodSandbox',
        RunPodSandboxRequest.fromPartial({ config, runtimeHandler: 'gvisor' }),
      ),
      stack.cri.call(
        'createContainer',
        CreateContainerRequest.fromPartial({
          podSandboxId: podId,
          config: shellContainer(image, 'true', { name: 'second' }),
          sandboxConfig: config,
        }),
      ),
      exec(stack.cri, containerId, ['true']),
    ];
    for (const call of refused) await assert.rejects(call, unavailable);
    const filter = { filter: { id: containerId } };
    const { containers } = await stack.cri.call(
      'listContainers',
      ListContainersRequest.fromPartial(filter),
    );
    assert.deepEqual(
      containers.map(({ state }) => state),
      [ContainerState.CONTAINER_RUNNING],
    );
    assert.ok(await execWorks('runc'), 'the other handler works on');

    byHand.push(startByHand(stack, command));
    await eventually('exec works again', () => execWorks('gvisor'), recoveryMs());
    assert.ok((await advertised()).includes('gvisor'));
    assert.deepEqual((await observer.stop()).wrong, []);
    await untouched();
  });

  it('a worker that is stopped ends its attached clients with an error that says so, while their containers run on', async () => {
    const { stack } = node;
    const { containerId } = podOf('runc');
    const attached = await Promise.all(
      (['SPDY', 'WebSocket'] as const).map((transport) =>
        openStreams(stack.cri, { containerId, transport }),
      ),
    );
    await Promise.all(
      attached.map(({ onOutput }) => new Promise<void>((resolve) => onOutput(() => resolve()))),
    );
    const pid = await servingPid(node, 'runtime.runc');
    const command = await commandOfPid('runtime-runc', pid);
    process.kill(pid, 'SIGTERM');
    for (const { end, destroy } of attached) {
      const { text, exitCode } = await end;
      assert.equal(exitCode, undefined, text);
      assert.match(text, /attach to container .* its worker is being stopped/);
      destroy();
    }
    byHand.push(startByHand(stack, command));
    await eventually('exec works again', () => execWorks('runc'), recoveryMs());
    await untouched();
  });

  it('a worker that hangs makes no probe fail for being slow: its ExecSync is UNAVAILABLE', async () => {
    const pid = await servingPid(node, 'runtime.runc');
    process.kill(pid, 'SIGSTOP');
    try {
      // The first is asked before the gateway misses the worker, the second when it does.
      const { containerId } = podOf('runc');
      await assert.rejects(
        exec(node.stack.cri, containerId, ['true'], 1),
        /14 UNAVAILABLE: runtime\.runc.*did not answer in time/,
      );
      await assert.rejects(
        exec(node.stack.cri, containerId, ['true'], 1),
        /14 UNAVAILABLE: handler "runc" is unavailable: its worker has not been heard from/,
      );
    } finally {
      process.kill(pid, 'SIGCONT');
    }
    await eventually('exec works again', () => execWorks('runc'), recoveryMs());
    await untouched();
  });
});

describe('a worker that is started later', () => {
  let node: FaultNode;
  let late: ServiceByHand | undefined;

  before(async () => {
    const config = '[runtimes.handlers.runc]\nfamily = "runc"\nengine = "runc"\n';
    node = await startFaultNode({ config });
  });
  after(async () => {
    await late?.end('SIGKILL');
    await node?.destroy();
  });

  it('appears in Status, and runs pods of its handler, without a restart of anything', async () => {
    const { stack, image } = node;
    const { cri, root } = stack;
    const handlers = async () => {
      const { runtimeHandlers } = await cri.call('status', StatusRequest.fromPartial({}));
      return runtimeHandlers.map(({ name }) => name);
    };
    assert.deepEqual(await handlers(), ['', 'runc']);
    const before = await stack.status();
    await assert.rejects(
      runPod(stack, { image, handler: 'late', script: 'true' }),
      /no runtime for "late" is configured/,
    );

    const generated = join(root, 'state', 'generated', 'services.toml');
    const own = join(root, 'late.toml');
    const handler = '[runtimes.handlers.late]\nfamily = "runc"\nengine = "crun"\n';
    await writeFile(own, `${await readFile(generated, 'utf8')}\n${handler}`);
    const command = await commandOf(stack, 'runtime-runc');
    const argv = command.argv.map((word) => (word === generated ? own : word));
    late = startByHand(stack, { ...command, argv });
    await eventually('it is advertised', async () => (await handlers()).includes('late'));

    const { podId, containerId } = await runPod(stack, {
      image,
      handler: 'late',
      script: 'sleep 1000',
    });
    assert.equal((await exec(cri, containerId, ['echo', 'well'])).stdout, 'well\n');
    await cri.call(
      'removePodSandbox',
      RemovePodSandboxRequest.fromPartial({ podSandboxId: podId }),
    );
    const pids = (status: typeof before) => status.parts.map(({ pid }) => pid);
    assert.deepEqual(pids(await stack.status()), pids(before));
  });
});

/** The pid that an owner tells in its heartbeats. */
async function servingPid({ stack }: FaultNode, owner: string): Promise<number> {
  const { info } = await stack.cri.call('status', StatusRequest.fromPartial({ verbose: true }));
  const owners = JSON.parse(info['owners'] ?? '[]') as { name: string; pid: number }[];
  return owners.find(({ name }) => name === owner)?.pid ?? 0;
}
