// Static pods of a real kubelet that stands alone: without an API server it knows no RuntimeClass, so
// each handler is in turn the one of pods that name none.

import assert from 'node:assert/strict';
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { gunzipSync } from 'node:zlib';
import { dialSpdy } from '@cribus/cri-gateway/streaming/testing/spdy-client.ts';
import { fetchText } from '@cribus/e2e/harness/http.ts';
import { forward, overSpdy, overWebSocket } from '@cribus/e2e/harness/streams.ts';
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
      // A Sentry has a name of its own for the filesystems that it shares with the host.
      assert.match(mounted.body, handler === 'gvisor' ? /./ : /tmpfs/);
      // The port that needs no credentials tells of pods too.
      assert.ok((await fetchText(`${node.kubelet.readOnlyUrl}/pods`)).includes(name));
      await node.remove(whole);
      assert.equal(readFileSync(join(host, 'pre'), 'utf8'), 'stopping\n');
    });

    it(`restart with back-off, counts, reasons, last words and the log of the attempt before, with ${handler}`, async () => {
      const crash = pod('crash', {
        containers: [
          shell('main', node.image, 'echo told; echo the end >/dev/termination-log; exit 3'),
        ],
      });
      const never = pod('never', {
        restartPolicy: 'Never',
        containers: [
          shell('bad', node.image, 'echo silent >&2; exit 7', {
            terminationMessagePolicy: 'FallbackToLogsOnError',
          }),
          shell('good', node.image, 'exit 0'),
        ],
      });
      const job = pod('job', {
        restartPolicy: 'OnFailure',
        volumes: [{ name: 'disk', emptyDir: {} }],
        containers: [
          shell('main', node.image, 'test -e /disk/x || { echo >/disk/x; exit 1; }', {
            volumeMounts: [{ name: 'disk', mountPath: '/disk' }],
          }),
        ],
      });
      const [crashing, failed, done] = [crash, never, job].map((one) => node.place(one));
      assert.ok(crashing !== undefined && failed !== undefined && done !== undefined);
      const looping = await node.container(
        'it waits in CrashLoopBackOff',
        { pod: crashing, container: 'main' },
        ({ restartCount, state }) =>
          restartCount >= 2 && state.waiting?.reason === 'CrashLoopBackOff',
      );
      assert.partialDeepStrictEqual(looping.lastState.terminated, {
        exitCode: 3,
        reason: 'Error',
        message: 'the end\n',
      });
      assert.equal(await node.log(crashing, 'main', '?previous=true'), 'told\n');
      const ended = await node.until(
        'both ended',
        failed,
        ({ status }) => status.phase === 'Failed',
      );
      assert.partialDeepStrictEqual(statusOf(ended, 'bad')?.state.terminated, {
        exitCode: 7,
        reason: 'Error',
        message: 'silent\n',
      });
      assert.equal(statusOf(ended, 'good')?.state.terminated?.reason, 'Completed');
      const once = await node.until(
        'it is done',
        done,
        ({ status }) => status.phase === 'Succeeded',
      );
      assert.partialDeepStrictEqual(statusOf(once, 'main'), {
        restartCount: 1,
        state: { terminated: { exitCode: 0, reason: 'Completed' } },
      });
    });

    it(`are restarted where a probe says so, told ready only when they are, and killed for memory by that name, with ${handler}`, async () => {
      const sick = pod('sick', {
        containers: [
          shell(
            'main',
            node.image,
            `touch /tmp/live; sleep 2; rm /tmp/live; trap '' TERM; while :; do sleep 1; done`,
            {
              livenessProbe: {
                exec: { command: ['test', '-e', '/tmp/live'] },
                periodSeconds: 1,
                failureThreshold: 1,
                initialDelaySeconds: 1,
              },
            },
          ),
          shell('shy', node.image, WAIT, {
            readinessProbe: { exec: { command: ['test', '-e', '/tmp/ready'] }, periodSeconds: 1 },
          }),
        ],
        terminationGracePeriodSeconds: 1,
      });
      const hungry = pod('hungry', {
        restartPolicy: 'Never',
        containers: [
          shell('main', node.image, 'exec dd if=/dev/zero of=/dev/null bs=150M count=1', {
            resources: { limits: { memory: '48Mi' } },
          }),
        ],
      });
      const [probed, eating] = [sick, hungry].map((one) => node.place(one));
      assert.ok(probed !== undefined && eating !== undefined);
      const restarted = await node.container(
        'its liveness probe failed',
        { pod: probed, container: 'main' },
        ({ restartCount }) => restartCount >= 1,
      );
      assert.partialDeepStrictEqual(restarted.lastState.terminated, { exitCode: 137 });
      assert.equal(statusOf(await node.view(probed), 'shy')?.ready, false);
      const touched = await node.kubelet.ask(
        'POST',
        `/run/default/${probed}/shy?cmd=${encodeURIComponent('touch /tmp/ready')}`,
      );
      assert.equal(touched.status, 200, touched.body);
      await node.container(
        'it is ready',
        { pod: probed, container: 'shy' },
        ({ ready, restartCount }) => ready && restartCount === 0,
      );
      const killed = await node.container(
        'it was killed',
        { pod: eating, container: 'main' },
        ({ state }) => state.terminated !== undefined,
      );
      assert.partialDeepStrictEqual(killed.state.terminated, {
        exitCode: 137,
        reason: 'OOMKilled',
      });
      await node.remove(sick);
    });

    it(`answer logs, exec, attach and port-forward through the kubelet, with ${handler}`, async () => {
      const name = node.place(
        pod('served', {
          containers: [
            shell('main', node.image, 'echo one; echo two; httpd -p 8080 -h /www; cat; echo over', {
              stdin: true,
              stdinOnce: true,
            }),
          ],
        }),
      );
      await node.ready(name);
      assert.equal(await node.log(name, 'main', '?tailLines=1'), 'two\n');
      const following = node.log(name, 'main', '?follow=true&sinceSeconds=1000');
      const { url } = node.kubelet;
      const query = ['sh', '-c', 'cat; echo wrong >&2; exit 5'].map(
        (word) => `command=${encodeURIComponent(word)}`,
      );
      const exec = `${url}/exec/default/${name}/main?input=1&output=1&error=1&${query.join('&')}`;
      for (const dial of [overSpdy, overWebSocket]) {
        const streams = await dial(exec, { stdin: true });
        streams.write('sent and returned');
        streams.endInput();
        const end = await streams.end;
        assert.deepEqual(
          [String(await streams.stdout), String(await streams.stderr), end.exitCode],
          ['sent and returned', 'wrong\n', 5],
        );
      }
      const forwarding = await dialSpdy(`${url}/portForward/default/${name}`, [
        'portforward.k8s.io',
      ]);
      const { data } = await forward(forwarding, 8080);
      data.write('GET / HTTP/1.0\r\n\r\n');
      assert.match(String(await data.all), /hello from a pod/);
      forwarding.destroy();
      const attached = await overSpdy(
        `${url}/attach/default/${name}/main?input=1&output=1&error=1`,
        {
          stdin: true,
        },
      );
      attached.write('three\n');
      attached.endInput();
      assert.equal(await following, 'one\ntwo\nthree\nover\n');
    });

    it(`lose no line when their logs are rotated, with ${handler}`, async () => {
      const name = node.place(
        pod('wordy', {
          restartPolicy: 'Never',
          containers: [
            shell(
              'main',
              node.image,
              'i=0; while [ $i -lt 400 ]; do i=$((i+1)); echo "line $i of $(printf %0250d $i)"; sleep 0.02; done',
            ),
          ],
        }),
      );
      const view = await node.until(
        'it is done',
        name,
        ({ status }) => status.phase === 'Succeeded',
      );
      const directory = join(node.kubelet.podLogs, `default_${name}_${view.metadata.uid}`, 'main');
      const files = readdirSync(directory).sort();
      assert.ok(files.length > 1, `nothing was rotated: ${files}`);
      // The one that is written to sorts before those that were rotated out of it.
      const [current = '', ...rotated] = files;
      const text = [...rotated, current]
        .map((file) => {
          const bytes = readFileSync(join(directory, file));
          return String(file.endsWith('.gz') ? gunzipSync(bytes) : bytes);
        })
        .join('');
      assert.deepEqual(
        [...text.matchAll(/ F line (\d+) of /g)].map(([, number]) => Number(number)),
        Array.from({ length: 400 }, (_, index) => index + 1),
      );
    });
  });
}
