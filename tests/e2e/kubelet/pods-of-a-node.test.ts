// What controllers and people do with the pods of a node, as a kubelet plays it: rolling replacement,
// jobs, static pods that change, files copied by kubectl, a restarted kubelet, a node that shuts down.

import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { randomBytes, randomUUID } from 'node:crypto';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { freePort } from '@cribus/cli/tour/registry.ts';
import { PodSandboxState } from '@cribus/contracts/gen/cri/v1/api.ts';
import { describe, it } from 'mocha';
import { fetchText } from '../harness/http.ts';
import { eventually } from '../harness/stack.ts';
import { openStreams } from '../harness/streams.ts';
import { KUBELET_HANDLERS, kubeletSuite } from './kubelet-suite.ts';
import type { PodManifest } from './manifest.ts';

const WAIT = "trap 'exit 0' TERM; while :; do sleep 0.1; done";
/** Incompressible, and more than any buffer on the way holds. */
const COPIED_BYTES = 3_000_001;

describe('the pods of a node', () => {
  const node = kubeletSuite();
  const isDone = (pod: PodManifest): boolean =>
    node.kubelet.statusOf(pod).sandboxes[0]?.state === PodSandboxState.SANDBOX_NOTREADY;
  const untilAllRun = (pods: readonly PodManifest[]) =>
    node.kubelet.until('they run', () =>
      pods.every((pod) =>
        pod.containers.every(({ name }) => node.kubelet.shown(pod, name).state === 'running'),
      ),
    );

  it('are replaced by a Deployment while the old ones answer until the new ones are ready, and by a DaemonSet one after the other at the same port of the host', async () => {
    const { kubelet, suite } = node;
    const { image } = suite;
    const version = (text: string) => ({
      name: 'web',
      image,
      script: `mkdir /www2; echo ${text} > /www2/index.html; httpd -p 8080 -h /www2; ${WAIT}`,
      readiness: { httpGet: { port: 8080, path: '/' } },
    });
    // A server that reads a socket of a Sentry in the host's network at once may get nothing from it.
    const answer = (url: string) => eventually(url, () => fetchText(url));
    const ask = (pod: PodManifest) => answer(`http://${kubelet.ipOf(pod)}:8080/`);
    const ports = await Promise.all(KUBELET_HANDLERS.map(() => freePort()));
    const generation = (text: string) =>
      KUBELET_HANDLERS.map((handler, index) => ({
        deployed: node.add({
          name: `deployed-${text}-${handler}`,
          handler,
          containers: [version(text)],
        }),
        daemon: () =>
          node.add({
            name: `daemon-${handler}`,
            handler,
            ports: [{ containerPort: 8080, hostPort: ports[index] ?? 0 }],
            containers: [version(text)],
          }),
        hostUrl: `http://127.0.0.1:${ports[index]}/`,
      }));
    const first = generation('one').map((each) => ({ ...each, daemon: each.daemon() }));
    for (const { deployed, daemon } of first) {
      await kubelet.untilRunning(deployed);
      await kubelet.untilRunning(daemon);
    }
    const second = generation('two');
    for (const { deployed } of second) await kubelet.untilRunning(deployed);
    for (const { deployed } of first) assert.equal(await ask(deployed), 'one\n');
    // The old pod of a Deployment goes when the new one is ready, that of a DaemonSet before.
    await Promise.all(first.flatMap(({ deployed, daemon }) => [deployed, daemon].map(terminate)));
    for (const { deployed } of second) assert.equal(await ask(deployed), 'two\n');
    const daemons = second.map((each) => ({ pod: each.daemon(), url: each.hostUrl }));
    for (const { pod, url } of daemons) {
      await kubelet.untilRunning(pod);
      assert.equal(await answer(url), 'two\n');
    }
  });

  it('are counted by a Job until enough have completed, and those that failed are replaced', async () => {
    const { kubelet, suite } = node;
    for (const handler of KUBELET_HANDLERS) {
      const start = (index: number, script: string) =>
        node.add({
          name: `job-${handler}-${index}`,
          handler,
          restartPolicy: 'Never',
          containers: [{ name: 'work', image: suite.image, script }],
        });
      const begun = [start(0, 'echo done'), start(1, 'exit 6')];
      await kubelet.until('both ended', () => begun.every(isDone));
      const reasons = begun.map((pod) => kubelet.shown(pod, 'work').reason);
      assert.deepEqual(reasons, ['Completed', 'Error']);
      const replacement = start(2, 'echo done');
      await kubelet.until('its place is taken', () => isDone(replacement));
      // What ended is there to be read until the Job is deleted.
      const logs = [...begun, replacement].map((pod) => kubelet.logOf(pod, 'work'));
      assert.deepEqual(
        logs.map((log) => / F done\n$/.test(log)),
        [true, false, true],
      );
      assert.equal(kubelet.shown(replacement, 'work').restartCount, 0);
    }
  });

  it('come back under the same name and uid where a static pod is put back, and are others where its file changed', async () => {
    const { kubelet, suite } = node;
    const versions = KUBELET_HANDLERS.map((handler) => {
      const of = (uid: string, text: string) => ({
        uid,
        name: `static-${handler}`,
        namespace: 'kube-system',
        handler,
        containers: [{ name: 'main', image: suite.image, script: `echo ${text}; ${WAIT}` }],
      });
      const uid = randomUUID();
      return {
        first: () => node.add(of(uid, 'one')),
        changed: () => node.add(of(randomUUID(), 'two')),
      };
    });
    const before = versions.map(({ first }) => first());
    await untilAllRun(before);
    const addresses = before.map((pod) => kubelet.ipOf(pod));
    // Taken away and put back before anything of it was collected, and again after.
    await Promise.all(before.map(terminate));
    const again = versions.map(({ first }) => first());
    await untilAllRun(again);
    assert.deepEqual(
      again.map((pod) => kubelet.statusOf(pod).sandboxes[0]?.metadata?.attempt),
      [1, 1],
    );
    await kubelet.terminateAll();
    const anew = versions.map(({ first }) => first());
    await untilAllRun(anew);
    assert.deepEqual(
      anew.map((pod) => kubelet.statusOf(pod).sandboxes[0]?.metadata?.attempt),
      [0, 0],
    );
    await Promise.all(anew.map(terminate));
    const changed = versions.map((one) => one.changed());
    await untilAllRun(changed);
    for (const pod of changed) assert.match(kubelet.logOf(pod, 'main'), / F two\n$/);
    assert.equal(new Set(addresses).size, 2);
  });

  it('take files from kubectl cp and give them back, with their links and modes, byte by byte', async () => {
    const { kubelet, suite } = node;
    const directory = mkdtempSync(join(tmpdir(), 'cribus-copied-'));
    node.undo(() => rmSync(directory, { recursive: true }));
    mkdirSync(join(directory, 'tree/below'), { recursive: true });
    const bytes = randomBytes(COPIED_BYTES);
    writeFileSync(join(directory, 'tree/below/noise'), bytes, { mode: 0o741 });
    symlinkSync('below/noise', join(directory, 'tree/link'));
    const pods = node.addToEach(() => ({
      name: 'copied',
      containers: [{ name: 'main', image: suite.image, script: WAIT }],
    }));
    await untilAllRun(pods.map(({ pod }) => pod));
    const run = async (containerId: string, cmd: readonly string[], input?: Buffer) => {
      const streams = await openStreams(node.cri, {
        containerId,
        cmd,
        ...(input === undefined ? {} : { stdin: true }),
      });
      if (input !== undefined) streams.write(input);
      if (input !== undefined) streams.endInput();
      assert.equal((await streams.end).exitCode, 0, String(await streams.stderr));
      return streams.stdout;
    };
    for (const { handler, pod } of pods) {
      const { id } = kubelet.containerOf(pod, 'main');
      const archive = execFileSync('tar', ['-cf', '-', '-C', directory, 'tree'], {
        maxBuffer: 2 * COPIED_BYTES,
      });
      await run(id, ['tar', '-xmf', '-', '-C', '/tmp'], archive);
      const back = join(directory, handler);
      mkdirSync(back);
      const received = await run(id, ['tar', 'cf', '-', '-C', '/tmp', 'tree']);
      execFileSync('tar', ['-xf', '-', '-C', back], { input: received });
      const listed = execFileSync('find', ['tree', '-printf', '%p %M %l\n'], { cwd: back });
      const sent = execFileSync('find', ['tree', '-printf', '%p %M %l\n'], { cwd: directory });
      assert.deepEqual(String(listed).split('\n').sort(), String(sent).split('\n').sort());
      assert.ok(readFileSync(join(back, 'tree/link')).equals(bytes));
    }
  });

  it('go on while the kubelet is restarted, and end by priority, each with its grace, when the node shuts down', async () => {
    const { kubelet, suite } = node;
    const { image } = suite;
    const grouped = [
      { group: 'plain', last: 'sleep 0.5;' },
      { group: 'critical', last: '' },
    ].map(({ group, last }) =>
      node.addToEach(() => ({
        name: group,
        terminationGracePeriodS: 5,
        containers: [
          {
            name: 'main',
            image,
            script: `trap '${last} echo ended >/v/ended; exit 0' TERM; while :; do sleep 0.1; done`,
          },
        ],
      })),
    );
    const pods = grouped.flat();
    await untilAllRun(pods.map(({ pod }) => pod));
    const ids = () =>
      pods.map(({ pod }) => {
        const { sandboxes, containers } = kubelet.statusOf(pod);
        return [...sandboxes, ...containers].map(({ id }) => id).join();
      });
    const [known, did] = [ids(), kubelet.done.length];
    kubelet.forget();
    await kubelet.syncAll();
    await kubelet.syncAll();
    assert.deepEqual(ids(), known);
    assert.equal(kubelet.done.length, did, 'a restarted kubelet has nothing to do');
    const [plain = [], critical = []] = grouped;
    await Promise.all(plain.map(({ pod }) => kubelet.terminate(pod)));
    for (const { volume } of plain)
      assert.equal(readFileSync(`${volume}/ended`, 'utf8'), 'ended\n');
    for (const { pod } of critical) {
      await kubelet.relist(pod.uid);
      assert.equal(kubelet.shown(pod, 'main').state, 'running');
    }
    await Promise.all(critical.map(({ pod }) => kubelet.terminate(pod)));
    for (const { volume } of critical)
      assert.equal(readFileSync(`${volume}/ended`, 'utf8'), 'ended\n');
  });

  function terminate(pod: PodManifest): Promise<void> {
    return node.kubelet.terminate(pod);
  }
});
