// The rules by which a kubelet makes pods again (podSandboxChanged, computePodActions), played over the
// death and the new start of the whole runtime: they must find nothing to do.

import assert from 'node:assert/strict';
import { existsSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { ImageStatusRequest, PodSandboxState } from '@cribus/contracts/gen/cri/v1/api.ts';
import { describe, it } from 'mocha';
import { kubeletSuite } from '../e2e/kubelet/kubelet-suite.ts';
import type { PodManifest } from '../e2e/kubelet/manifest.ts';
import { killAll, upAgain, upPid } from './harness/fault-node.ts';

const WAIT = "trap 'exit 0' TERM; while :; do sleep 0.1; done";
/** Ends with 9 when it is told, once. */
const ON_CALL = [
  "trap 'exit 0' TERM; touch /v/up",
  'while :; do [ -e /v/end ] && rm /v/end /v/up && exit 9; sleep 0.05; done',
].join('\n');
const SYNC_MS = 200;
/** The period of the generic PLEG. */
const RELIST_MS = 1_000;
const OWNERS = ['runtime-runc', 'runtime-gvisor', 'sandbox-manager', 'image-service'];

describe('a kubelet whose runtime is killed and started again', () => {
  const node = kubeletSuite();

  /** What would differ if anything had been made again. */
  const identity = (pod: PodManifest) => {
    const { sandboxes, containers } = node.kubelet.statusOf(pod);
    return {
      sandboxes: sandboxes.map(({ id, metadata, network, createdAt }) => ({
        ...{ id, attempt: metadata?.attempt, createdAt },
        network: [network?.ip, network?.additionalIps],
      })),
      containers: containers
        .filter(({ metadata }) => metadata?.name !== 'callee')
        .map(({ id, startedAt, state, exitCode }) => ({ id, startedAt, state, exitCode })),
    };
  };

  async function imageId(): Promise<string | undefined> {
    const request = ImageStatusRequest.fromPartial({ image: { image: node.suite.image } });
    return (await node.kubelet.client.ask('imageStatus', request)).image?.id;
  }

  it('makes no sandbox and no container again, finds the addresses of before, and starts once what ended meanwhile', async () => {
    const { kubelet, suite } = node;
    const { image, stack } = suite;
    const kept = node.addToEach(() => ({
      name: 'kept',
      containers: [
        { name: 'main', image, script: WAIT, liveness: { exec: ['true'] } },
        { name: 'callee', image, script: ON_CALL },
      ],
    }));
    const jobs = node.addToEach(() => ({
      name: 'job',
      restartPolicy: 'Never',
      containers: [{ name: 'main', image, script: 'exit 0' }],
    }));
    const hosts = node.addToEach(() => ({
      name: 'host',
      hostNetwork: true,
      containers: [{ name: 'main', image, script: WAIT }],
    }));
    const pods = [...kept, ...jobs, ...hosts];
    const isDone = ({ pod }: (typeof jobs)[number]) =>
      kubelet.statusOf(pod).sandboxes[0]?.state === PodSandboxState.SANDBOX_NOTREADY;
    const callees = (restartCount: number) =>
      kept.every(
        ({ pod, volume }) =>
          existsSync(join(volume, 'up')) &&
          kubelet.shown(pod, 'callee').state === 'running' &&
          kubelet.shown(pod, 'callee').restartCount === restartCount,
      );
    await kubelet.until('all run or are done', () => {
      const running = hosts.every(({ pod }) => kubelet.shown(pod, 'main').state === 'running');
      return running && callees(0) && jobs.every(isDone);
    });
    const before = pods.map(({ pod }) => identity(pod));
    const imageBefore = await imageId();
    const did = kubelet.done.length;

    const parts = (await stack.status()).parts.map(({ pid }) => pid);
    killAll([await upPid(stack), ...parts]);
    for (const { volume } of kept) writeFileSync(join(volume, 'end'), '');
    let isUp = false;
    const up = upAgain(stack).finally(() => {
      isUp = true;
    });
    while (!isUp) {
      await kubelet.syncAll().catch(() => undefined);
      await sleep(SYNC_MS);
    }
    await up;
    // A kubelet that was restarted with it knows nothing but what the runtime says.
    kubelet.forget();
    await kubelet.until('what ended was started again', () => callees(1));
    await kubelet.until('it has looked at all', () => jobs.every(isDone));
    assert.deepEqual(
      pods.map(({ pod }) => identity(pod)),
      before,
    );
    assert.deepEqual(
      kubelet.done.slice(did).sort(),
      kept.map(({ pod }) => `start ${pod.name}/callee 1`).sort(),
    );
    for (const { pod } of kept) {
      assert.partialDeepStrictEqual(kubelet.shown(pod, 'callee'), {
        restartCount: 1,
        lastReason: 'Error',
      });
    }
    // Under which EnsureSecretPulledImages has recorded who may use it.
    assert.equal(await imageId(), imageBefore);
    const addresses = kept.map(({ pod }) => kubelet.ipOf(pod));
    const [added] = node.addToEach(() => ({
      name: 'later',
      containers: [{ name: 'main', image, script: WAIT }],
    }));
    assert.ok(added !== undefined);
    await kubelet.untilRunning(added.pod);
    assert.ok(!addresses.includes(kubelet.ipOf(added.pod)), 'addresses that are in use');
  });

  it('reads every status within the second of a relist while all owners hang, and acts for no pod', async () => {
    const { kubelet, suite } = node;
    const { image, stack } = suite;
    const pods = node.addToEach(() => ({
      name: 'seen',
      containers: ['one', 'two'].map((name) => ({ name, image, script: WAIT })),
    }));
    for (const { pod } of pods) await kubelet.untilRunning(pod);
    const before = pods.map(({ pod }) => identity(pod));
    const did = kubelet.done.length;
    const pids = await Promise.all(OWNERS.map((name) => stack.pidOf(name)));
    for (const pid of pids) process.kill(pid, 'SIGSTOP');
    try {
      kubelet.forget();
      const began = performance.now();
      await kubelet.relist();
      const tookMs = performance.now() - began;
      assert.ok(tookMs < RELIST_MS, `${tookMs} ms`);
      await kubelet.syncAll();
    } finally {
      for (const pid of pids) process.kill(pid, 'SIGCONT');
    }
    assert.deepEqual(
      pods.map(({ pod }) => identity(pod)),
      before,
    );
    assert.deepEqual(kubelet.done.slice(did), []);
  });
});
