// docs/kubernetes-features.md tells users of Kubernetes what works, and by which tests that is known. A
// name in it that isn't there is a feature that nobody looks at.

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { describe, it } from 'mocha';
import { missingTests, shownRows } from './shown-by.ts';

const root = dirname(dirname(dirname(fileURLToPath(import.meta.url))));
const PAGE = 'docs/kubernetes-features.md';
/** What the page has to speak of, in this order. */
const FEATURES = [
  'Deployments, DaemonSets, Jobs, Static pods, Init containers, Restartable init containers',
  'postStart and preStop, probes, Restart policies, CrashLoopBackOff, Termination messages',
  'logs -f, logs --previous, exec -it, attach, cp, port-forward, debug',
  'emptyDir on disk, emptyDir in memory, hostPath, configMap, secret, projected, Downward API',
  'Image volumes, Resources, OOMKilled, In-place resize, hostNetwork, hostPID, hostPorts',
  'Security contexts, User namespaces, imagePullSecrets, imagePullPolicy',
  'RuntimeClass with overhead, RuntimeClass with scheduling, Graceful node shutdown',
  'Kubelet restart, Runtime restart, Node reboot, kubectl top, /metrics/cadvisor',
].flatMap((line) => line.split(', '));

const textOf = (path: string): string => readFileSync(join(root, path), 'utf8');

describe("the table of Kubernetes' features", () => {
  const rows = shownRows(PAGE);

  it('names only tests that exist', () => {
    assert.deepEqual(missingTests(rows), []);
  });

  it('has a row for each feature, in order, and tests in every row', () => {
    const names = rows.map(({ row }) => row.replaceAll('`', ''));
    const places = FEATURES.map((feature) => names.findIndex((name) => name.includes(feature)));
    const absent = FEATURES.filter((_feature, index) => places[index] === -1);
    assert.deepEqual(absent, []);
    assert.deepEqual(
      places,
      places.toSorted((one, other) => one - other),
    );
    const empty = rows.filter(({ tests }) => tests.length === 0).map(({ row }) => row);
    assert.deepEqual(empty, []);
  });

  it('has a RuntimeClass for each handler, with overhead and the node label that the page for nodes sets', () => {
    const classes = textOf('deploy/kubernetes/runtimeclasses.yaml').split('\n---\n');
    const page = textOf('docs/kubernetes.md');
    const handlers = classes.map((text) => {
      const handler = /^handler: (\S+)$/m.exec(text)?.[1] ?? '';
      assert.match(text, new RegExp(`^  name: ${handler}$`, 'm'));
      assert.match(text, /^overhead:\n {2}podFixed: \{ memory: \d+Mi/m);
      const label = /^scheduling:\n {2}nodeSelector: \{ (\S+): "true" \}$/m.exec(text)?.[1];
      assert.equal(label, `cribus.dev/${handler}`);
      assert.ok(page.includes(`${label}=true`), `${label} is set nowhere`);
      return handler;
    });
    assert.deepEqual(handlers, ['runc', 'crun', 'gvisor']);
  });
});
