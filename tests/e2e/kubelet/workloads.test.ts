// What controllers and people do with the pods of a node, as its kubelet plays it: rolling a Deployment
// over, completing a Job, shutting the node down in order, restarting the kubelet.

import assert from 'node:assert/strict';
import { statSync } from 'node:fs';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import {
  ContainerState,
  ListContainersRequest,
  ListPodSandboxRequest,
  PodSandboxState,
} from '@cribus/contracts/gen/cri/v1/api.ts';
import { describe, it } from 'mocha';
import { fetchText } from '../harness/http.ts';
import { kubeletSuite, type SharingPod } from './kubelet-suite.ts';
import { isRunning, latest } from './pod-actions.ts';

const WAIT = "trap 'exit 0' TERM; while :; do sleep 0.1; done";
const PORT = 8080;

describe('the pods of a node', () => {
  const node = kubeletSuite();
  const runs = ({ pod }: SharingPod): boolean =>
    isRunning(latest(node.kubelet.statusOf(pod), 'main'));
  const allRun = (pods: readonly SharingPod[]) =>
    node.kubelet.until('they run', () => pods.every(runs));
  /** When TERM came, in ms since 1970, by the file that the container makes then. */
  const termedAt = ({ volume }: SharingPod): number => statSync(join(volume, 'termed')).mtimeMs;

  it('are rolled over as a Deployment does: the new ones serve before the old ones go, with addresses of their own', async () => {
    const { kubelet, suite } = node;
    const { image } = suite;
    const replica = (name: string) =>
      node.addToEach(() => ({
        name,
        containers: [
          {
            name: 'main',
            image,
            script: `mkdir /tmp/web; echo ${name} > /tmp/web/index.html; exec httpd -f -p ${PORT} -h /tmp/web`,
            readiness: { httpGet: { port: PORT, path: '/' } },
          },
        ],
      }));
    const isReady = ({ pod }: SharingPod): boolean => {
      const status = latest(kubelet.statusOf(pod), 'main');
      return isRunning(status) && kubelet.probes.ready.has(status.id);
    };
    const serving = (pods: readonly SharingPod[]) =>
      kubelet.until('they serve', () => pods.every(isReady));
    const old = [...replica('old-1'), ...replica('old-2')];
    await serving(old);
    const fresh = [...replica('new-1'), ...replica('new-2')];
    await serving(fresh);
    const addresses = [...old, ...fresh].map(({ pod }) => kubelet.ipOf(pod));
    assert.equal(new Set(addresses).size, old.length + fresh.length);
    await Promise.all(old.map(({ pod }) => kubelet.terminate(pod)));
    for (const { pod } of fresh) {
      const text = await fetchText(`http://${kubelet.ipOf(pod)}:${PORT}/`);
      assert.match(text, /^new-[12]\n$/);
      assert.equal(kubelet.shown(pod, 'main').restartCount, 0);
    }
  });

  it('complete as those of a Job do: each runs to its end, one that failed is replaced, and none comes back', async () => {
    const { kubelet, suite } = node;
    const { image } = suite;
    const work = (name: string, script: string) =>
      node.addToEach(() => ({
        name,
        restartPolicy: 'Never',
        containers: [{ name: 'main', image, script }],
      }));
    const state = ({ pod }: SharingPod): string => {
      const { state: now, reason, exitCode } = kubelet.shown(pod, 'main');
      return `${now} ${reason} ${exitCode}`;
    };
    const first = [...work('job-1', 'echo done'), ...work('job-2', 'exit 5')];
    await kubelet.until('they have ended', () =>
      first.every((one) => state(one).startsWith('terminated')),
    );
    assert.deepEqual(first.map(state).sort(), [
      'terminated Completed 0',
      'terminated Completed 0',
      'terminated Error 5',
      'terminated Error 5',
    ]);
    const replacement = work('job-3', 'echo done');
    await kubelet.until('the replacements too', () =>
      replacement.every((one) => state(one) === 'terminated Completed 0'),
    );
    const ready = ListPodSandboxRequest.fromPartial({
      filter: { state: { state: PodSandboxState.SANDBOX_READY } },
    });
    await kubelet.until('no sandbox of theirs is left', async () => {
      return (await node.cri.call('listPodSandbox', ready)).items.length === 0;
    });
    for (const { pod } of [...first, ...replacement]) {
      assert.equal(kubelet.done.filter((act) => act.startsWith(`start ${pod.name}/`)).length, 1);
    }
  });

  it('end at the shutdown of their node in the order of their priorities, each with its grace', async () => {
    const { kubelet, suite } = node;
    const { image } = suite;
    const slow = ': > /v/termed; sleep 0.7; exit 0';
    const ofPriority = (name: string) =>
      node.addToEach(() => ({
        name,
        terminationGracePeriodS: 5,
        containers: [
          { name: 'main', image, script: `trap '${slow}' TERM; while :; do sleep 0.1; done` },
          { name: 'other', image, script: WAIT },
        ],
      }));
    const usual = ofPriority('usual');
    const critical = ofPriority('critical');
    await allRun([...usual, ...critical]);
    for (const group of [usual, critical]) {
      await Promise.all(group.map(({ pod }) => kubelet.terminate(pod)));
    }
    const lastUsual = Math.max(...usual.map(termedAt));
    assert.ok(critical.every((one) => termedAt(one) >= lastUsual + 700));
    const { containers } = await node.cri.call(
      'listContainers',
      ListContainersRequest.fromPartial({}),
    );
    assert.deepEqual(containers, []);
  });

  it('are found as they are by a kubelet that is started again', async () => {
    const { kubelet, suite } = node;
    const { image } = suite;
    const kept = node.addToEach(() => ({
      name: 'kept',
      containers: [{ name: 'main', image, script: WAIT }],
    }));
    const ending = node.addToEach(() => ({
      name: 'ending',
      containers: [
        { name: 'main', image, script: 'until [ -e /v/go ]; do sleep 0.1; done; exit 4' },
      ],
    }));
    await allRun([...kept, ...ending]);
    const before = kept.map(({ pod }) => [kubelet.containerOf(pod, 'main').id, kubelet.ipOf(pod)]);
    const acts = kubelet.done.length;
    kubelet.forget();
    await allRun([...kept, ...ending]);
    assert.deepEqual(kubelet.done.slice(acts), [], 'nothing had to be done');
    assert.deepEqual(
      kept.map(({ pod }) => [kubelet.containerOf(pod, 'main').id, kubelet.ipOf(pod)]),
      before,
    );
    for (const { pod } of kept) {
      assert.equal(kubelet.containerOf(pod, 'main').state, ContainerState.CONTAINER_RUNNING);
    }
    // Away while containers end: what it finds then is told by the runtime alone.
    kubelet.forget();
    await Promise.all(ending.map(({ volume }) => writeFile(join(volume, 'go'), '')));
    await kubelet.until('what ended was started again', () =>
      ending.every(({ pod }) => kubelet.shown(pod, 'main').restartCount >= 1),
    );
    for (const { pod } of ending) assert.equal(kubelet.shown(pod, 'main').lastReason, 'Error');
  });
});
