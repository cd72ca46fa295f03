// A real kubelet keeps its pods when it is started again, and when the runtime is.

import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { HANDLERS } from '@cribus/e2e/harness/suite.ts';
import { before, describe, it } from 'mocha';
import { kubeletNode } from './harness/kubelet-node.ts';
import { isReady, type PodView, pod, shell, statusOf } from './harness/pod.ts';

describe('pods of a real kubelet that is started again', () => {
  const node = kubeletNode({ inCluster: true });
  const names = HANDLERS.map((handler) => `kept-${handler}`);
  const views = () => Promise.all(names.map((name) => node.ready(name)));
  /** What a restart must not change. */
  const lives = (of: readonly PodView[]) =>
    of.map((view) => [
      view.status.podIP,
      statusOf(view, 'main')?.containerID,
      statusOf(view, 'main')?.restartCount,
    ]);
  before(async () => {
    const path = join(node.directory, 'volumes');
    for (const handler of HANDLERS) {
      const name = `kept-${handler}`;
      const script = `until [ -e /host/${name} ]; do sleep 0.2; done; rm /host/${name}; exit 9`;
      node.api.put('node.k8s.io/v1/runtimeclasses', { metadata: { name: handler }, handler });
      node.api.runPod(
        pod(name, {
          runtimeClassName: handler,
          volumes: [{ name: 'host', hostPath: { path } }],
          containers: [
            shell('main', node.image, script, {
              volumeMounts: [{ name: 'host', mountPath: '/host' }],
              readinessProbe: { exec: { command: ['true'] }, periodSeconds: 1 },
            }),
          ],
        }),
      );
    }
    await views();
  });

  it('are the same after a restart of the kubelet, whatever way it asks the runtime from then on', async () => {
    const before = lives(await views());
    const gates = ['EventedPLEG', 'CRIListStreaming', 'PodAndContainerStatsFromCRI'];
    await node.kubelet.stop();
    await node.kubelet.start(Object.fromEntries(gates.map((name) => [name, true])));
    assert.deepEqual(lives(await views()), before);
    await node.kubelet.stop();
    await node.kubelet.start();
    assert.deepEqual(lives(await views()), before);
  });

  it('are the same after a restart of the runtime, and what ended meanwhile is restarted once, by its exit code', async () => {
    const before = lives(await views());
    const down = await node.stack.cribus('down');
    assert.equal(down.code, 0, down.stderr);
    const up = await node.stack.cribus('up', '--detach');
    assert.equal(up.code, 0, up.stderr);
    assert.deepEqual(lives(await views()), before);
    await node.stack.cribus('down');
    for (const name of names) writeFileSync(join(node.directory, 'volumes', name), '');
    const again = await node.stack.cribus('up', '--detach');
    assert.equal(again.code, 0, again.stderr);
    for (const name of names) {
      const view = await node.until(
        'it was restarted',
        name,
        (one) => isReady(one) && statusOf(one, 'main')?.restartCount === 1,
      );
      assert.partialDeepStrictEqual(statusOf(view, 'main')?.lastState.terminated, {
        exitCode: 9,
        reason: 'Error',
      });
    }
  });
});
