// How containers end and come back, as a kubelet plays it: restart policies, back-off, what is shown of
// an end, and that nothing of an earlier attempt is lost or in the way.

import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { isAbsolute } from 'node:path';
import { ContainerState, PodSandboxState } from '@cribus/contracts/gen/cri/v1/api.ts';
import { describe, it } from 'mocha';
import { exec } from '../harness/pods.ts';
import { KUBELET_HANDLERS, kubeletSuite } from './kubelet-suite.ts';
import { volumeDirectory } from './manifest.ts';

const WAIT = "trap 'exit 0' TERM; while :; do sleep 0.1; done";
const MIB = 1024 * 1024;

describe('how a kubelet restarts containers', () => {
  const node = kubeletSuite();
  /** The attempts that were started, as `main 0`. */
  const starts = (podName: string): string[] =>
    node.kubelet.done
      .filter((one) => one.startsWith(`start ${podName}/`))
      .map((one) => one.slice(`start ${podName}/`.length));

  for (const handler of KUBELET_HANDLERS) {
    it(`once for each end under Always, while it fails under OnFailure, and never under Never, with ${handler}`, async () => {
      const { kubelet, suite, paths } = node;
      const image = suite.image;
      const always = node.add({
        name: `always-${handler}`,
        handler,
        containers: [{ name: 'main', image, script: 'exit 0' }],
      });
      const never = node.add({
        name: `never-${handler}`,
        handler,
        restartPolicy: 'Never',
        containers: [
          { name: 'bad', image, script: 'echo told >/dev/termination-log; exit 7' },
          { name: 'good', image, script: 'sleep 0.3' },
        ],
      });
      const job = { name: `job-${handler}`, handler, restartPolicy: 'OnFailure' as const };
      const uid = crypto.randomUUID();
      const count = 'n=$(cat /v/n 2>/dev/null || echo 0); echo $((n+1)) >/v/n; [ $n -ge 2 ]';
      const onFailure = node.add({
        ...job,
        uid,
        containers: [{ name: 'main', image, script: count, mounts: [] }],
      });
      const hostPath = volumeDirectory(paths, onFailure, { kind: 'empty-dir', name: 'v' });
      Object.assign(onFailure.containers[0] ?? {}, { mounts: [{ containerPath: '/v', hostPath }] });

      const isDone = (pod: typeof never) =>
        kubelet.statusOf(pod).sandboxes[0]?.state === PodSandboxState.SANDBOX_NOTREADY;
      await kubelet.until('one crashes in a loop, two are done', () => {
        return (
          isDone(never) &&
          isDone(onFailure) &&
          starts(always.name).length >= 3 &&
          kubelet.shown(always, 'main').reason === 'CrashLoopBackOff'
        );
      });
      const shown = kubelet.shown(always, 'main');
      assert.deepEqual(
        [shown.state, shown.lastReason, shown.exitCode],
        ['waiting', 'Completed', 0],
      );
      assert.deepEqual(starts(never.name), ['bad 0', 'good 0']);
      assert.partialDeepStrictEqual(kubelet.shown(never, 'bad'), {
        state: 'terminated',
        reason: 'Error',
        exitCode: 7,
        message: 'told\n',
      });
      assert.partialDeepStrictEqual(kubelet.shown(never, 'good'), {
        state: 'terminated',
        reason: 'Completed',
        exitCode: 0,
      });
      assert.deepEqual(starts(onFailure.name), ['main 0', 'main 1', 'main 2']);
      assert.partialDeepStrictEqual(kubelet.shown(onFailure, 'main'), {
        reason: 'Completed',
        restartCount: 2,
        lastReason: 'Error',
      });
    });

    it(`counts up through CrashLoopBackOff and keeps the log and the exit code of the attempt before, with ${handler}`, async () => {
      const { kubelet, suite } = node;
      const script =
        'echo attempt $KUBERNETES_SERVICE_HOST; echo the end >/dev/termination-log; exit 3';
      const pod = node.add({
        name: `crash-${handler}`,
        handler,
        containers: [{ name: 'main', image: suite.image, script }],
      });
      await kubelet.until(
        'it waits',
        () => kubelet.shown(pod, 'main').reason === 'CrashLoopBackOff',
      );
      const waiting = kubelet.shown(pod, 'main');
      assert.partialDeepStrictEqual(waiting, {
        state: 'waiting',
        lastReason: 'Error',
        exitCode: 3,
      });
      assert.equal(waiting.message, 'the end\n');
      await kubelet.until('it was restarted', () => kubelet.shown(pod, 'main').restartCount >= 3);
      await kubelet.collectGarbage();
      const counts = starts(pod.name);
      assert.deepEqual(
        counts,
        [...counts.keys()].map((count) => `main ${count}`),
      );
      const kept = kubelet.statusOf(pod).containers;
      assert.ok(kept.length <= 2, 'one dead container is kept at most');
      for (const { id, metadata, annotations, logPath, exitCode, state } of kept) {
        assert.equal(
          String(metadata?.attempt),
          annotations['io.kubernetes.container.restartCount'],
        );
        assert.ok(
          isAbsolute(logPath) && logPath.endsWith(`/main/${metadata?.attempt}.log`),
          logPath,
        );
        if (state !== ContainerState.CONTAINER_EXITED) continue;
        assert.equal(exitCode, 3);
        assert.match(kubelet.logOf(pod, 'main', id), / stdout F attempt 10\.96\.0\.1\n/);
      }
      const { sandboxes } = kubelet.statusOf(pod);
      assert.equal(sandboxes.length, 1, 'the sandbox is the same all the time');
    });

    it(`finds termination messages at any path, cut at 4096 bytes, and in the log where a container failed silently, with ${handler}`, async () => {
      const { kubelet, suite } = node;
      const { image } = suite;
      const pod = node.add({
        name: `words-${handler}`,
        handler,
        restartPolicy: 'Never',
        containers: [
          {
            name: 'long',
            image,
            terminationMessagePath: '/tmp/last-words',
            script: 'head -c 5000 /dev/zero | tr "\\0" x >/tmp/last-words',
          },
          {
            name: 'silent',
            image,
            terminationMessagePolicy: 'FallbackToLogsOnError',
            script: 'echo one; echo two >&2; exit 1',
          },
          {
            name: 'well',
            image,
            terminationMessagePolicy: 'FallbackToLogsOnError',
            script: 'echo all is well',
          },
        ],
      });
      await kubelet.until('all ended', () =>
        pod.containers.every(({ name }) => kubelet.shown(pod, name).state === 'terminated'),
      );
      const messages = pod.containers.map(({ name }) => kubelet.shown(pod, name).message);
      assert.equal(messages[0], 'x'.repeat(4096));
      assert.deepEqual(messages[1]?.split('\n').sort(), ['one', 'two']);
      assert.equal(messages[2], '');
    });

    it(`waits with the next attempt until the one before is dead, also when its stop takes the whole grace period, with ${handler}`, async () => {
      const { kubelet, suite, paths } = node;
      const containers = [
        {
          name: 'main',
          image: suite.image,
          // Who finds that another attempt's heart still beats says so.
          script: [
            'beats() { wc -c < /v/beats 2> /dev/null || echo 0; }',
            'before=$(beats); sleep 0.5; [ "$before" = "$(beats)" ] || touch /v/overlap',
            "rm -f /v/sick; trap '' TERM; touch /v/up",
            'while :; do echo >> /v/beats; sleep 0.1; done',
          ].join('\n'),
          liveness: { exec: ['test', '!', '-e', '/v/sick'] },
          mounts: [] as { containerPath: string; hostPath: string }[],
        },
      ];
      const pod = node.add({ name: `lock-${handler}`, handler, containers });
      const hostPath = volumeDirectory(paths, pod, { kind: 'empty-dir', name: 'v' });
      containers[0]?.mounts.push({ containerPath: '/v', hostPath });
      await kubelet.until('it is up', () => existsSync(`${hostPath}/up`));
      const first = kubelet.containerOf(pod, 'main');
      await exec(node.cri, first.id, ['sh', '-c', 'rm /v/up; touch /v/sick']);
      await kubelet.until('it is killed', () =>
        kubelet.done.includes(`stop ${pod.name}/main: liveness probe failed`),
      );
      await kubelet.until('the next one is up', () => existsSync(`${hostPath}/up`));
      assert.ok(!existsSync(`${hostPath}/overlap`));
      assert.equal(kubelet.shown(pod, 'main').restartCount, 1);
      const dead = kubelet.statusOf(pod).containers.find(({ id }) => id === first.id);
      assert.deepEqual([dead?.exitCode, dead?.reason], [137, 'Error']);
    });
  }

  it('shows OOMKilled with 137 as the reason of a container over its limit, and restarts it', async () => {
    const { kubelet, suite } = node;
    const pod = node.add({
      name: 'memory',
      handler: 'runc',
      containers: [
        {
          name: 'main',
          image: suite.image,
          limits: { cpuMilli: 500, memoryBytes: 16 * MIB },
          script: 'sleep 0.3; tail /dev/zero',
        },
        { name: 'other', image: suite.image, script: WAIT },
      ],
    });
    await kubelet.until(
      'it is killed',
      () => kubelet.shown(pod, 'main').lastReason === 'OOMKilled',
    );
    const { containers } = kubelet.statusOf(pod);
    const killed = containers.find(({ reason }) => reason === 'OOMKilled');
    assert.equal(killed?.exitCode, 137);
    assert.equal(kubelet.shown(pod, 'other').restartCount, 0);
  });

  it('shows CreateContainerError or RunContainerError for a command that is not there, until the definition is right', async () => {
    const { kubelet, suite } = node;
    const broken = node.add({
      name: 'broken',
      handler: 'runc',
      containers: [
        {
          name: 'main',
          image: suite.image,
          script: WAIT,
          mounts: [{ containerPath: '/v', hostPath: '/nowhere/at/all' }],
        },
        { name: 'other', image: suite.image, script: WAIT },
      ],
    });
    await kubelet.until('it fails', () => kubelet.shown(broken, 'main').reason !== '');
    assert.equal(kubelet.shown(broken, 'main').reason, 'CreateContainerError');
    await kubelet.until('the other runs', () => kubelet.shown(broken, 'other').state === 'running');
    Object.assign(broken.containers[0] ?? {}, { mounts: [] });
    await kubelet.untilRunning(broken);
    assert.equal(kubelet.shown(broken, 'main').restartCount, 0);
  });
});
