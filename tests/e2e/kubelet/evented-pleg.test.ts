// A kubelet with the feature gate EventedPLEG: it learns what happens from the runtime's events, and
// relists only when it has to.

import assert from 'node:assert/strict';
import { existsSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { ContainerEventType, PodSandboxState } from '@cribus/contracts/gen/cri/v1/api.ts';
import { describe, it } from 'mocha';
import { eventually } from '../harness/stack.ts';
import { EventedPleg } from './evented-pleg.ts';
import { kubeletSuite } from './kubelet-suite.ts';
import type { PodManifest } from './manifest.ts';

const WAIT = "trap 'exit 0' TERM; while :; do sleep 0.1; done";
/** Ends with 9 when it is told, once. */
const ON_CALL = [
  "trap 'exit 0' TERM; touch /v/up",
  'while :; do [ -e /v/end ] && rm /v/end /v/up && exit 9; sleep 0.05; done',
].join('\n');

describe('a kubelet that follows events', () => {
  const node = kubeletSuite();

  async function withEvents(work: (pleg: EventedPleg) => Promise<void>): Promise<void> {
    const pleg = new EventedPleg(node.kubelet);
    pleg.start();
    try {
      await eventually('the stream', async () => pleg.connections === 1);
      await work(pleg);
    } finally {
      await pleg.stop();
    }
  }
  const startsOf = (pod: PodManifest, name: string): string[] =>
    node.kubelet.done.filter((one) => one.startsWith(`start ${pod.name}/${name} `));
  /** Each attempt once, and in order. */
  const assertStarts = (pod: PodManifest, name: string): void => {
    const starts = startsOf(pod, name);
    assert.deepEqual(
      starts,
      [...starts.keys()].map((attempt) => `start ${pod.name}/${name} ${attempt}`),
    );
  };
  const sandboxesOf = (pod: PodManifest): number =>
    node.kubelet.done.filter((one) => one.startsWith(`sandbox ${pod.name} `)).length;

  it('runs, restarts and ends pods by events alone, without one relist, in a time that only rises, and starts nothing twice', async () => {
    const { kubelet, suite } = node;
    const { client } = kubelet;
    const { image } = suite;
    await withEvents(async ({ events }) => {
      // One that the relisting of before had begun may still be under way.
      await kubelet.relist();
      const relists = client.count('listPodSandbox') + client.count('listContainers');
      const pods = node.addToEach(() => ({
        name: 'evented',
        containers: [
          { name: 'main', image, script: WAIT },
          { name: 'crash', image, script: 'exit 3' },
        ],
      }));
      const jobs = node.addToEach(() => ({
        name: 'evented-job',
        restartPolicy: 'Never',
        containers: [{ name: 'main', image, script: 'exit 0' }],
      }));
      await kubelet.until('some crash again and again, some are done', () => {
        const isDone = ({ pod }: (typeof jobs)[number]) =>
          kubelet.statusOf(pod).sandboxes[0]?.state === PodSandboxState.SANDBOX_NOTREADY;
        return (
          jobs.every(isDone) &&
          pods.every(
            ({ pod }) =>
              kubelet.shown(pod, 'main').state === 'running' &&
              kubelet.shown(pod, 'crash').restartCount >= 2,
          )
        );
      });
      assert.equal(client.count('listPodSandbox') + client.count('listContainers'), relists);
      for (const { pod } of [...pods, ...jobs]) {
        for (const { name } of pod.containers) assertStarts(pod, name);
        assert.equal(sandboxesOf(pod), 1);
      }
      for (const { pod } of pods) assert.equal(startsOf(pod, 'main').length, 1);
      const ended = events.find(
        ({ containerEventType, containersStatuses }) =>
          containerEventType === ContainerEventType.CONTAINER_STOPPED_EVENT &&
          containersStatuses.some(({ exitCode }) => exitCode === 3),
      );
      assert.ok(ended !== undefined, 'an exit code comes with its event');
    });
  });

  it('relists once when its stream breaks and goes on by a new one, and relists every second after five tries that failed', async () => {
    const { kubelet, suite } = node;
    const { client } = kubelet;
    await withEvents(async (pleg) => {
      const pods = node.addToEach(() => ({
        name: 'broken-stream',
        containers: [{ name: 'main', image: suite.image, script: ON_CALL }],
      }));
      const areUp = (restartCount: number) => () =>
        pods.every(
          ({ pod, volume }) =>
            existsSync(join(volume, 'up')) &&
            kubelet.shown(pod, 'main').restartCount === restartCount &&
            kubelet.shown(pod, 'main').state === 'running',
        );
      await kubelet.until('they run', areUp(0));
      await kubelet.relist();
      const lists = client.count('listPodSandbox');
      for (const { volume } of pods) writeFileSync(join(volume, 'end'), '');
      pleg.breakStream();
      await eventually('a second stream', async () => pleg.connections === 2);
      await kubelet.until('they were restarted', areUp(1));
      assert.equal(client.count('listPodSandbox') - lists, 1);

      process.kill(await suite.stack.pidOf('cri-gateway'), 'SIGKILL');
      for (const { volume } of pods) writeFileSync(join(volume, 'end'), '');
      await eventually('five tries', async () => pleg.hasFallenBack);
      await eventually('the gateway is back', async () => {
        await client.ask('status', { verbose: false });
        return true;
      });
      await kubelet.until('they were restarted again', areUp(2));
      for (const { pod } of pods) {
        assert.equal(startsOf(pod, 'main').length, 3);
        assertStarts(pod, 'main');
        assert.equal(sandboxesOf(pod), 1);
      }
    });
  });
});
