// How a real kubelet gets images: with secrets and without, by each policy, and what it says of those
// that it doesn't get.

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { archive } from '@cribus/e2e/harness/archive.ts';
import { composeImage } from '@cribus/e2e/harness/compose-image.ts';
import { type FaultyRegistry, startFaultyRegistry } from '@cribus/e2e/harness/faulty-registry.ts';
import { after, before, describe, it } from 'mocha';
import { kubeletNode } from './harness/kubelet-node.ts';
import { podGone } from './harness/played-api-server.ts';
import { pod } from './harness/pod.ts';

const PASSWORD = 'pass-sesame';

describe('images of a real kubelet', () => {
  let registry: FaultyRegistry;
  before(async () => {
    registry = await startFaultyRegistry();
    const data = readFileSync('/bin/busybox');
    const layer = archive([{ name: 'bin/' }, { name: 'bin/busybox', mode: 0o755, data }]);
    for (const name of ['private', 'public']) {
      registry.publish(`team/${name}`, 'v1', composeImage({ layers: [layer] }));
    }
    const wanted = `Basic ${Buffer.from(`kim:${PASSWORD}`).toString('base64')}`;
    registry.intercept = ({ url = '', headers }, response) => {
      if (!url.includes('private') || headers.authorization === wanted) return false;
      response.writeHead(401, { 'WWW-Authenticate': 'Basic realm="team"' });
      response.end('{}');
      return true;
    };
  });
  after(() => registry.stop());
  const node = kubeletNode({ inCluster: true });
  const run = (name: string, image: string, more: Readonly<Record<string, unknown>> = {}) => {
    const { imagePullPolicy = 'IfNotPresent', ...spec } = more;
    const command = ['/bin/busybox', 'sleep', '1000'];
    const containers = [{ name: 'main', image, imagePullPolicy, command }];
    node.api.runPod(pod(name, { terminationGracePeriodSeconds: 0, ...spec, containers }));
    return name;
  };
  const waits = (name: string, reason: string) =>
    node.container(
      reason,
      { pod: name, container: 'main' },
      ({ state }) => state.waiting?.reason === reason,
    );

  it('are pulled with the secret of a pod, and neither pulled nor lent to a pod that has none', async () => {
    const host = registry.host;
    const config = { auths: { [host]: { username: 'kim', password: PASSWORD } } };
    node.api.put('v1/secrets', {
      metadata: { name: 'team', namespace: 'default' },
      type: 'kubernetes.io/dockerconfigjson',
      data: { '.dockerconfigjson': Buffer.from(JSON.stringify(config)).toString('base64') },
    });
    const image = `${host}/team/private:v1`;
    const refused = await waits(run('without', image), 'ImagePullBackOff');
    assert.match(refused.state.waiting?.message ?? '', /team\/private/);
    assert.doesNotMatch(node.kubelet.log(), new RegExp(PASSWORD));
    await node.ready(run('with', image, { imagePullSecrets: [{ name: 'team' }] }));
    await waits(run('later', image), 'ImagePullBackOff');
    for (const name of ['without', 'with', 'later']) node.api.deletePod(name);
    await Promise.all(['without', 'with', 'later'].map((name) => podGone(node.api, name)));
  });

  it('are asked for as each pull policy says, and a wrong name, an absent image and an absent registry are told apart', async () => {
    const image = `${registry.host}/team/public:v1`;
    await waits(run('never', image, { imagePullPolicy: 'Never' }), 'ErrImageNeverPull');
    await node.ready(run('first', image));
    const asked = () => registry.countOf('team/public/manifests');
    const before = asked();
    await node.ready(run('present', image));
    assert.equal(asked(), before);
    await node.ready(run('always', image, { imagePullPolicy: 'Always' }));
    assert.ok(asked() > before);
    await node.ready('never');
    await waits(run('wrong', 'Not/A:Name:'), 'InvalidImageName');
    const absent = await waits(run('absent', `${registry.host}/team/none:v1`), 'ImagePullBackOff');
    assert.match(absent.state.waiting?.message ?? '', /team\/none/);
    const away = await waits(run('away', '127.0.0.1:1/team/none:v1'), 'ImagePullBackOff');
    assert.match(away.state.waiting?.message ?? '', /RegistryUnavailable/);
  });
});
