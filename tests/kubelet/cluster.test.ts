// A real kubelet with an API server, which is played: what static pods can't have. RuntimeClasses choose
// the worker, pods get configuration and secrets, and are debugged, resized and deleted while they run.

import assert from 'node:assert/strict';
import { readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { ListPodSandboxRequest } from '@cribus/contracts/gen/cri/v1/api.ts';
import { fetchText } from '@cribus/e2e/harness/http.ts';
import { eventually } from '@cribus/e2e/harness/stack.ts';
import { HANDLERS, HOST_KERNEL_HANDLERS } from '@cribus/e2e/harness/suite.ts';
import { before, describe, it } from 'mocha';
import { NODE, NODE_IP } from './harness/kubelet.ts';
import { kubeletNode } from './harness/kubelet-node.ts';
import { podGone } from './harness/played-api-server.ts';
import { pod, shell, statusOf, WAIT } from './harness/pod.ts';
import type { JsonObject } from './harness/strategic-merge.ts';

/** Nobody else is in the network namespace of the tests. */
const PORT = 8088;

interface NodeView {
  readonly status: {
    readonly conditions: readonly { readonly type: string; readonly status: string }[];
    readonly nodeInfo: { readonly containerRuntimeVersion: string };
    readonly runtimeHandlers: readonly {
      readonly name: string;
      readonly features?: Readonly<Record<string, boolean>>;
    }[];
  };
}

describe('a real kubelet of a cluster', () => {
  const node = kubeletNode({ inCluster: true });
  before(() => {
    for (const handler of HANDLERS) {
      node.api.put('node.k8s.io/v1/runtimeclasses', {
        metadata: { name: `class-${handler}` },
        handler,
      });
    }
    node.api.put('v1/configmaps', {
      metadata: { name: 'settings', namespace: 'default' },
      data: { color: 'blue' },
    });
    node.api.put('v1/secrets', {
      metadata: { name: 'keys', namespace: 'default' },
      data: { key: Buffer.from('hidden').toString('base64') },
    });
  });

  it('makes a Ready node that names the runtime and the features of each handler', async () => {
    const view = await eventually('the node is ready', async () => {
      const found = node.api.object('v1/nodes', NODE) as unknown as NodeView | undefined;
      const ready = found?.status.conditions.find(({ type }) => type === 'Ready');
      return ready?.status === 'True' ? found : undefined;
    });
    assert.match(view.status.nodeInfo.containerRuntimeVersion, /^cribus:\/\/\d/);
    const names = view.status.runtimeHandlers.map(({ name }) => name);
    assert.deepEqual(names.toSorted(), ['', ...HANDLERS].toSorted());
  });

  for (const handler of HANDLERS) {
    it(`runs a pod of a RuntimeClass by its handler, with configuration, secrets and a token, under ${handler}`, async () => {
      const name = `class-${handler}`;
      node.api.runPod(
        pod(name, {
          runtimeClassName: name,
          serviceAccountName: 'default',
          volumes: [
            { name: 'settings', configMap: { name: 'settings' } },
            { name: 'keys', secret: { secretName: 'keys', defaultMode: 0o400 } },
            {
              name: 'all',
              projected: {
                sources: [
                  { serviceAccountToken: { path: 'token', expirationSeconds: 3600 } },
                  { configMap: { name: 'settings', items: [{ key: 'color', path: 'a/color' }] } },
                ],
              },
            },
            { name: 'image', image: { reference: node.image, pullPolicy: 'IfNotPresent' } },
          ],
          containers: [
            shell(
              'main',
              node.image,
              `cat /settings/color /keys/key /all/token /all/a/color; echo; echo $COLOR; cat /page /image/www/index.html; ${WAIT}`,
              {
                env: [
                  {
                    name: 'COLOR',
                    valueFrom: { configMapKeyRef: { name: 'settings', key: 'color' } },
                  },
                ],
                volumeMounts: [
                  { name: 'settings', mountPath: '/settings' },
                  { name: 'keys', mountPath: '/keys' },
                  { name: 'all', mountPath: '/all' },
                  { name: 'image', mountPath: '/image' },
                  { name: 'settings', mountPath: '/page', subPath: 'color' },
                ],
              },
            ),
          ],
        }),
      );
      await node.ready(name);
      assert.equal(
        await eventually('it said all', async () => {
          const log = await node.log(name, 'main');
          return log.includes('hello') ? log : undefined;
        }),
        'bluehiddentoken-of-the-service-accountblue\nblue\nbluehello from a pod\n',
      );
      const { items } = await node.stack.cri.call(
        'listPodSandbox',
        ListPodSandboxRequest.fromPartial({}),
      );
      const sandbox = items.find(({ metadata }) => metadata?.name === name);
      assert.equal(sandbox?.runtimeHandler, handler);
      assert.equal(node.api.pod(name)?.status.phase, 'Running');
      node.api.deletePod(name);
      await podGone(node.api, name);
    });

    it(`debugs a pod by an ephemeral container, resizes it in place, and deletes it after its hook, under ${handler}`, async () => {
      const name = `changed-${handler}`;
      const host = join(node.directory, 'volumes');
      const resources = (cpu: string, memory: string) => ({ limits: { cpu, memory } });
      const main = shell('main', node.image, `echo began; ${WAIT}`, {
        resources: resources('500m', '256Mi'),
        volumeMounts: [{ name: 'host', mountPath: '/host' }],
        lifecycle: {
          preStop: { exec: { command: ['sh', '-c', `echo last >/host/pre-${handler}`] } },
        },
      });
      node.api.runPod(
        pod(name, {
          runtimeClassName: `class-${handler}`,
          volumes: [{ name: 'host', hostPath: { path: host } }],
          containers: [main],
        }),
      );
      await node.ready(name);
      const visitor = shell('debugger', node.image, `ls -d /proc/[0-9]*; echo seen; ${WAIT}`, {
        targetContainerName: 'main',
      });
      node.api.changePod(name, (spec) => ({
        ...spec,
        ephemeralContainers: [visitor as JsonObject],
      }));
      await node.container(
        'the debugger runs',
        { pod: name, container: 'debugger' },
        ({ state }) => state.running !== undefined,
      );
      const processes = await eventually('it has looked around', async () => {
        const log = await node.log(name, 'debugger');
        return log.includes('seen') ? log : undefined;
      });
      assert.ok(processes.split('/proc/').length > 3, `it sees its own only: ${processes}`);
      const resized = { ...main, resources: resources('250m', '320Mi') };
      node.api.changePod(name, (spec) => ({ ...spec, containers: [resized as JsonObject] }));
      if (handler === 'gvisor') {
        // Its pod has new limits; of the container they are none in a Sentry, and the kubelet says so.
        const refused = await node.until('the kubelet says why not', name, ({ status }) =>
          status.conditions?.some(({ message }) => message?.includes('share one sandbox process')),
        );
        assert.equal(statusOf(refused, 'main')?.restartCount, 0);
      } else {
        const status = await node.container(
          'it is resized',
          { pod: name, container: 'main' },
          ({ resources: actual }) => actual?.limits?.['memory'] === '320Mi',
        );
        assert.deepEqual(status.resources?.limits, { cpu: '250m', memory: '320Mi' });
        assert.equal(status.restartCount, 0);
      }
      node.api.deletePod(name);
      await podGone(node.api, name);
      assert.equal(readFileSync(join(host, `pre-${handler}`), 'utf8'), 'last\n');
      assert.ok(
        node.api.events().some((event) => event.startsWith('Killing: Stopping container main')),
      );
    });
  }

  it('checkpoints a container into an archive where criu can, and says why where it can not', async () => {
    node.api.runPod(pod('frozen', { containers: [shell('main', node.image, WAIT)] }));
    await node.ready('frozen');
    const { status, body } = await node.kubelet.ask('POST', '/checkpoint/default/frozen/main');
    if (status === 200) {
      const [path = ''] = (JSON.parse(body) as { readonly items: readonly string[] }).items;
      assert.ok(statSync(path).size > 0);
    } else assert.match(body, /checkpoint.*criu/s);
    await node.ready('frozen');
  });

  for (const handler of HOST_KERNEL_HANDLERS) {
    it(`gives a pod the network, the processes and a port of the host, or users of its own, as asked, under ${handler}`, async () => {
      const of = (name: string, spec: Readonly<Record<string, unknown>>, script: string) => {
        const container = shell('main', node.image, script, {
          securityContext: { allowPrivilegeEscalation: false, readOnlyRootFilesystem: true },
          ...(name === 'port' ? { ports: [{ containerPort: 8080, hostPort: PORT }] } : {}),
        });
        const full = `${name}-${handler}`;
        const runtimeClassName = `class-${handler}`;
        node.api.runPod(pod(full, { runtimeClassName, ...spec, containers: [container] }));
        return full;
      };
      const host = of(
        'host',
        { hostNetwork: true, hostPID: true },
        `ip address; ls -d /proc/1; ${WAIT}`,
      );
      const port = of('port', {}, 'exec httpd -f -p 8080 -h /www');
      const own = of(
        'own',
        { hostUsers: false, securityContext: { runAsUser: 1000, runAsGroup: 1000, fsGroup: 2000 } },
        `id; cat /proc/self/uid_map; ${WAIT}`,
      );
      const together = of('together', { shareProcessNamespace: true }, WAIT);
      const views = await Promise.all([host, port, own, together].map((name) => node.ready(name)));
      assert.equal(views[0]?.status.podIP, NODE_IP);
      assert.match(await node.log(host, 'main'), /inet 192\.0\.2\.10\/24/);
      assert.equal(await fetchText(`http://${NODE_IP}:${PORT}/`), 'hello from a pod\n');
      const said = await node.log(own, 'main');
      assert.match(said, /^uid=1000\(app\) gid=1000\S* groups=.*2000/);
      const [, inside, outside, length] = /^ +(\d+) +(\d+) +(\d+)$/m.exec(said) ?? [];
      assert.deepEqual([inside, length], ['0', '65536']);
      assert.ok(Number(outside) >= 65536, `mapped to ${outside}`);
      for (const name of [host, port, own, together]) node.api.deletePod(name);
      await Promise.all([host, port, own, together].map((name) => podGone(node.api, name)));
    });
  }
});
