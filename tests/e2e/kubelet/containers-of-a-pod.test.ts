// The containers of a pod in their order, as a kubelet plays it: init containers, sidecars, ephemeral
// containers, hooks and probes. The pods of both handlers live side by side.

import assert from 'node:assert/strict';
import { existsSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { PodSandboxState } from '@cribus/contracts/gen/cri/v1/api.ts';
import { describe, it } from 'mocha';
import { exec } from '../harness/pods.ts';
import { eventually } from '../harness/stack.ts';
import { openStreams } from '../harness/streams.ts';
import { kubeletSuite, type SharingPod } from './kubelet-suite.ts';
import type { PodManifest } from './manifest.ts';

/** Ends well at TERM, after it has told so. */
const untilTerm = (name: string, last = ''): string =>
  `trap '${last} echo ${name} ends >> /v/order; exit 0' TERM; while :; do sleep 0.1; done`;
const tell = (text: string): string => `echo ${text} >> /v/order`;

function told({ volume }: SharingPod): string[] {
  const path = join(volume, 'order');
  return existsSync(path) ? readFileSync(path, 'utf8').trim().split('\n') : [];
}

describe('the containers of a pod', () => {
  const node = kubeletSuite();
  const starts = (pod: PodManifest): string[] =>
    node.kubelet.done
      .filter((one) => one.startsWith(`start ${pod.name}/`))
      .map((one) => one.slice(`start ${pod.name}/`.length));
  const isRunning = (pod: PodManifest, name: string): boolean =>
    node.kubelet.shown(pod, name).state === 'running';
  const isDone = (pod: PodManifest): boolean =>
    node.kubelet.statusOf(pod).sandboxes[0]?.state === PodSandboxState.SANDBOX_NOTREADY;

  it('start with init containers one after another, each again until it succeeds, and never go on after one that failed for good', async () => {
    const { kubelet, suite } = node;
    const { image } = suite;
    const retried = node.addToEach(() => ({
      name: 'init',
      initContainers: [
        { name: 'first', image, script: `${tell('first')}; sleep 0.2; ${tell('first done')}` },
        {
          name: 'second',
          image,
          script: `${tell('second')}; [ -e /v/tried ] || { touch /v/tried; exit 4; }`,
        },
      ],
      containers: [
        { name: 'main', image, script: `${tell('main')}; ${untilTerm('main')}` },
        { name: 'other', image, script: untilTerm('other') },
      ],
    }));
    const failed = node.addToEach(() => ({
      name: 'init-fails',
      restartPolicy: 'Never',
      initContainers: [{ name: 'bad', image, script: 'exit 3' }],
      containers: [{ name: 'main', image, script: tell('main') }],
    }));
    await kubelet.until('some run, some have failed', () => {
      const up = retried.every(({ pod }) => isRunning(pod, 'main') && isRunning(pod, 'other'));
      return up && failed.every(({ pod }) => isDone(pod));
    });
    for (const each of retried) {
      await eventually('main runs', async () => told(each).includes('main'));
      assert.deepEqual(told(each), ['first', 'first done', 'second', 'second', 'main']);
      assert.deepEqual(starts(each.pod), ['first 0', 'second 0', 'second 1', 'main 0', 'other 0']);
      assert.partialDeepStrictEqual(kubelet.shown(each.pod, 'second'), {
        state: 'terminated',
        reason: 'Completed',
        restartCount: 1,
        lastReason: 'Error',
      });
    }
    for (const { pod } of failed) {
      assert.deepEqual(starts(pod), ['bad 0']);
      assert.equal(kubelet.shown(pod, 'bad').exitCode, 3);
    }
  });

  it('have sidecars that start before them, come back when they end, and are stopped after them, the last one first', async () => {
    const { kubelet, suite } = node;
    const { image } = suite;
    const sidecar = (name: string, script = untilTerm(name)) =>
      ({ name, image, script, restartPolicy: 'Always' }) as const;
    const pods = node.addToEach(() => ({
      name: 'sidecars',
      initContainers: [
        {
          ...sidecar('proxy', `sleep 0.3; touch /v/proxy-up; ${untilTerm('proxy')}`),
          startup: { exec: ['test', '-e', '/v/proxy-up'], failureThreshold: 50 },
        },
        { name: 'setup', image, script: `[ -e /v/proxy-up ] && ${tell('setup')}` },
        sidecar('logger'),
      ],
      containers: [{ name: 'main', image, script: untilTerm('main', 'sleep 0.3;') }],
    }));
    const jobs = node.addToEach(() => ({
      name: 'job',
      restartPolicy: 'Never',
      initContainers: [sidecar('helper')],
      containers: [{ name: 'main', image, script: `sleep 0.3; ${tell('main ends')}` }],
    }));
    await kubelet.until('all run', () => pods.every(({ pod }) => isRunning(pod, 'main')));
    for (const { pod } of pods) {
      const { id } = kubelet.containerOf(pod, 'proxy');
      await exec(node.cri, id, ['kill', '-TERM', '1']);
    }
    await kubelet.until('the sidecars are back, the jobs are done', () => {
      const back = pods.every(
        ({ pod }) => isRunning(pod, 'proxy') && kubelet.shown(pod, 'proxy').restartCount === 1,
      );
      return back && jobs.every(({ pod }) => isDone(pod));
    });
    for (const each of jobs) {
      assert.deepEqual(told(each), ['main ends', 'helper ends']);
      assert.equal(kubelet.shown(each.pod, 'helper').reason, 'Completed');
    }
    await Promise.all(pods.map(({ pod }) => kubelet.terminate(pod)));
    for (const each of pods) {
      assert.deepEqual(starts(each.pod), ['proxy 0', 'setup 0', 'logger 0', 'main 0', 'proxy 1']);
      assert.deepEqual(told(each), [
        'setup',
        'proxy ends',
        'main ends',
        'logger ends',
        'proxy ends',
      ]);
    }
  });

  it('are looked into by an ephemeral one that is attached to, sees the processes of its target, and is never started again', async () => {
    const { kubelet, suite } = node;
    const { image } = suite;
    const pods = node.addToEach(() => ({
      name: 'debugged',
      containers: [
        { name: 'main', image, script: `: the target; ${untilTerm('main')}` },
        { name: 'other', image, script: `: another; ${untilTerm('other')}` },
      ],
    }));
    await kubelet.until('they run', () => pods.every(({ pod }) => isRunning(pod, 'main')));
    for (const { pod } of pods) {
      const debugging = { targetContainerName: 'main', stdin: true, tty: true };
      const script = 'echo ready; exec sh';
      pod.ephemeralContainers.push({ name: 'debugger', image, script, ...debugging });
    }
    await kubelet.until('debuggers run', () => pods.every(({ pod }) => isRunning(pod, 'debugger')));
    await Promise.all(
      pods.map(async ({ pod }) => {
        const { id: containerId } = kubelet.containerOf(pod, 'debugger');
        const streams = await openStreams(node.cri, { containerId, tty: true, stdin: true });
        const words = "cat /proc/*/cmdline | tr '\\0' ' '; exit 5\n";
        streams.write(words);
        const seen = (await streams.stdout).toString();
        assert.match(seen, /: the target;/);
        assert.doesNotMatch(seen, /: another;/);
      }),
    );
    await kubelet.until('debuggers ended', () =>
      pods.every(({ pod }) => kubelet.shown(pod, 'debugger').state === 'terminated'),
    );
    await kubelet.syncAll();
    for (const { pod } of pods) {
      assert.deepEqual(starts(pod), ['main 0', 'other 0', 'debugger 0']);
      assert.equal(kubelet.shown(pod, 'debugger').exitCode, 5);
    }
  });

  it('run postStart and preStop, which is given its share of the grace period, and are killed where postStart fails', async () => {
    const { kubelet, suite } = node;
    const { image } = suite;
    const pods = node.addToEach(() => ({
      name: 'hooks',
      terminationGracePeriodS: 1,
      containers: [
        {
          name: 'main',
          image,
          script: untilTerm('main'),
          postStart: ['sh', '-c', tell('postStart')],
          preStop: ['sh', '-c', `${tell('preStop')}; sleep 0.3; ${tell('preStop ends')}`],
        },
        {
          name: 'hanging',
          image,
          script: "trap 'touch /v/told-late; exit 0' TERM; while :; do sleep 0.1; done",
          preStop: ['sh', '-c', 'sleep 1.5; touch /v/outlived; sleep 60'],
        },
        {
          name: 'broken',
          image,
          script: "trap 'exit 9' TERM; while :; do sleep 0.1; done",
          postStart: ['sh', '-c', 'sleep 0.2; exit 1'],
        },
      ],
    }));
    await kubelet.until('broken ones were started again', () =>
      pods.every(
        ({ pod }) =>
          starts(pod).includes('broken 1') && kubelet.shown(pod, 'broken').exitCode === 9,
      ),
    );
    for (const { pod } of pods) {
      assert.match(kubelet.shown(pod, 'broken').reason, /PostStartHookError|CrashLoopBackOff/);
      assert.ok(isRunning(pod, 'main'));
    }
    const began = performance.now();
    await Promise.all(pods.map(({ pod }) => kubelet.terminate(pod)));
    const tookS = (performance.now() - began) / 1000;
    assert.ok(tookS > 1 && tookS < 8, `${tookS}`);
    for (const each of pods) {
      assert.deepEqual(told(each), ['postStart', 'preStop', 'preStop ends', 'main ends']);
      assert.ok(existsSync(join(each.volume, 'told-late')));
      assert.ok(!existsSync(join(each.volume, 'outlived')), 'the hook is killed at its time-out');
    }
  });

  it('are probed by command, HTTP and TCP: startup holds the others back, readiness comes and goes, liveness restarts', async () => {
    const { kubelet, suite } = node;
    const { image } = suite;
    const pods = node.addToEach(() => ({
      name: 'probed',
      containers: [
        {
          name: 'web',
          image,
          script: `mkdir /v/www; httpd -p 8080 -h /v/www; ${untilTerm('web')}`,
          readiness: { httpGet: { port: 8080, path: '/ready' } },
        },
        {
          name: 'tcp',
          image,
          script: `rm -f /v/deaf; nc -ll -p 9090 -e true & pid=$!; while [ ! -e /v/deaf ]; do sleep 0.1; done; kill $pid; ${untilTerm('tcp')}`,
          startup: { tcpSocket: { port: 9090 }, failureThreshold: 50 },
          liveness: { tcpSocket: { port: 9090 } },
        },
        {
          name: 'slow',
          image,
          script: `touch /v/slow; while [ ! -e /v/go ]; do sleep 0.1; done; ${untilTerm('slow')}`,
          startup: { exec: ['test', '-e', '/v/go'], failureThreshold: 200 },
          liveness: { exec: ['test', '-e', '/v/go'], failureThreshold: 1 },
          readiness: { exec: ['true'] },
        },
        {
          name: 'never',
          image,
          script: untilTerm('never'),
          startup: { exec: ['false'], failureThreshold: 2 },
        },
      ],
    }));
    const isReady = ({ pod }: SharingPod, name: string): boolean =>
      kubelet.probes.ready.has(kubelet.containerOf(pod, name).id);
    const why = ({ pod }: SharingPod, name: string): string[] =>
      kubelet.done.filter((one) => one.startsWith(`stop ${pod.name}/${name}`));
    await kubelet.until('what never starts was killed', () =>
      pods.every((each) => why(each, 'never').length > 0),
    );
    for (const each of pods) {
      assert.deepEqual(why(each, 'never'), [`stop ${each.pod.name}/never: startup probe failed`]);
      assert.deepEqual([isReady(each, 'web'), isReady(each, 'slow')], [false, false]);
      writeFileSync(join(each.volume, 'www', 'ready'), 'yes');
      writeFileSync(join(each.volume, 'go'), '');
    }
    await kubelet.until('they are ready', () =>
      pods.every((each) => isReady(each, 'web') && isReady(each, 'slow')),
    );
    for (const { volume } of pods) {
      rmSync(join(volume, 'www', 'ready'));
      writeFileSync(join(volume, 'deaf'), '');
    }
    await kubelet.until('one is not ready, the other was restarted', () =>
      pods.every((each) => !isReady(each, 'web') && why(each, 'tcp').length > 0),
    );
    for (const each of pods) {
      assert.deepEqual(why(each, 'tcp'), [`stop ${each.pod.name}/tcp: liveness probe failed`]);
      for (const name of ['web', 'slow']) {
        assert.deepEqual(why(each, name), []);
        assert.equal(kubelet.shown(each.pod, name).restartCount, 0);
      }
    }
  });
});
