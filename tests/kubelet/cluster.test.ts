// A real kubelet with an API server, which is played: what static pods can't have. RuntimeClasses choose
// the worker, pods get configuration and secrets, and are debugged, resized and deleted while they run.

import assert from 'node:assert/strict';
import { ListPodSandboxRequest } from '@cribus/contracts/gen/cri/v1/api.ts';
import { eventually } from '@cribus/e2e/harness/stack.ts';
import { HANDLERS } from '@cribus/e2e/harness/suite.ts';
import { before, describe, it } from 'mocha';
import { NODE } from './harness/kubelet.ts';
import { kubeletNode } from './harness/kubelet-node.ts';
import { podGone } from './harness/played-api-server.ts';
import { pod, shell, WAIT } from './harness/pod.ts';

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
  }
});
