// Static pods of a real kubelet that stands alone: without an API server it knows no RuntimeClass, so
// each handler is in turn the one of pods that name none.

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fetchText } from '@cribus/e2e/harness/http.ts';
import { HANDLERS } from '@cribus/e2e/harness/suite.ts';
import { describe, it } from 'mocha';
import { kubeletNode } from './harness/kubelet-node.ts';
import { pod, shell, statusOf, WAIT } from './harness/pod.ts';

for (const handler of HANDLERS) {
  describe(`static pods of a real kubelet, with ${handler}`, () => {
    const node = kubeletNode({ handler });

    it(`start with init containers, sidecars, probes, hooks and volumes, and end by their hooks, with ${handler}`, async () => {
      const host = join(node.directory, 'volumes');
      const mounts = [
        { name: 'disk', mountPath: '/disk' },
        { name: 'memory', mountPath: '/memory' },
        { name: 'host', mountPath: '/host' },
        { name: 'info', mountPath: '/info' },
      ];
      const of = (name: string, script: string, more: Readonly<Record<string, unknown>> = {}) =>
        shell(name, node.image, script, { volumeMounts: mounts, ...more });
      const whole = pod(
        'whole',
        {
          volumes: [
            { name: 'disk', emptyDir: {} },
            { name: 'memory', emptyDir: { medium: 'Memory', sizeLimit: '8Mi' } },
            { name: 'host', hostPath: { path: host, type: 'Directory' } },
            {
              name: 'info',
              downwardAPI: {
                items: [{ path: 'labels', fieldRef: { fieldPath: 'metadata.labels' } }],
              },
            },
          ],
          initContainers: [
            of('first', 'echo one >/disk/first'),
            of('sidecar', `echo beside >/memory/sidecar; ${WAIT}`, {
              restartPolicy: 'Always',
              startupProbe: {
                exec: { command: ['test', '-e', '/memory/sidecar'] },
                periodSeconds: 1,
              },
            }),
            of('second', 'cat /disk/first /memory/sidecar >/host/init'),
          ],
          containers: [
            of(
              'main',
              'cat /info/labels; echo; echo "at $IP of $LIMIT"; exec httpd -f -p 8080 -h /www',
              {
                env: [
                  { name: 'IP', valueFrom: { fieldRef: { fieldPath: 'status.podIP' } } },
                  { name: 'LIMIT', valueFrom: { resourceFieldRef: { resource: 'limits.memory' } } },
                ],
                resources: { limits: { cpu: '500m', memory: '64Mi' } },
                lifecycle: {
                  postStart: { exec: { command: ['sh', '-c', 'echo started >/host/post'] } },
                  preStop: { exec: { command: ['sh', '-c', 'echo stopping >/host/pre'] } },
                },
                startupProbe: { exec: { command: ['test', '-e', '/host/post'] }, periodSeconds: 1 },
                readinessProbe: { httpGet: { port: 8080, path: '/' }, periodSeconds: 1 },
                livenessProbe: { tcpSocket: { port: 8080 }, periodSeconds: 1 },
              },
            ),
          ],
        },
        { labels: { app: 'whole' } },
      );
      const name = node.place(whole);
      const view = await node.ready(name);
      assert.deepEqual(
        ['first', 'second'].map((one) => statusOf(view, one)?.state.terminated?.reason),
        ['Completed', 'Completed'],
      );
      assert.equal(statusOf(view, 'sidecar')?.ready, true);
      assert.equal(statusOf(view, 'main')?.started, true);
      assert.equal(readFileSync(join(host, 'init'), 'utf8'), 'one\nbeside\n');
      assert.equal(readFileSync(join(host, 'post'), 'utf8'), 'started\n');
      const { podIP = '' } = view.status;
      assert.equal(
        await node.log(name, 'main'),
        `app="whole"\nat ${podIP} of ${64 * 1024 * 1024}\n`,
      );
      assert.equal(await fetchText(`http://${podIP}:8080/`), 'hello from a pod\n');
      const mounted = await node.kubelet.ask(
        'POST',
        `/run/default/${name}/main?cmd=${encodeURIComponent('stat -f -c %T /memory')}`,
      );
      assert.equal(mounted.status, 200, mounted.body);
      await node.remove(whole);
      assert.equal(readFileSync(join(host, 'pre'), 'utf8'), 'stopping\n');
    });
  });
}
