// `cribus tour` on a stack that is up: with the tour's own image, with any other one, interrupted, and
// `cribus pull` as its first step.

import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { after, before, describe, it } from 'mocha';
import { startForeground } from './harness/foreground.ts';
import { startTestRegistry, type TestRegistry } from './harness/images.ts';
import { assertNothingLeaked, type HostSnapshot, snapshotHost } from './harness/leaks.ts';
import { CRIBUS, type Stack, startStack } from './harness/stack.ts';

describe('the tour', () => {
  let host: HostSnapshot;
  let registry: TestRegistry;
  let stack: Stack;
  let ours: readonly string[];

  before(async () => {
    host = snapshotHost();
    registry = await startTestRegistry();
    ours = registries();
    stack = await startStack();
  });
  after(async () => {
    await stack?.destroy();
    await registry?.stop();
    assertNothingLeaked(host);
  });

  it("shows the host's kernel and gVisor's side by side, pages, logs and lists, and where to look", async () => {
    const { code, stdout, stderr } = await stack.cribus('tour');
    assert.equal(code, 0, stderr);
    const kernel = (await readFile('/proc/sys/kernel/osrelease', 'utf8')).trim();
    const row = /^ +uname -a +Linux tour-runc (\S+) .* Linux tour-gvisor (\S+) /m.exec(stdout);
    assert.equal(row?.[1], kernel);
    assert.notEqual(row?.[2], kernel);
    assert.match(stdout, /^ +pod IP +10\.\d+\.\d+\.\d+ +10\.\d+\.\d+\.\d+$/m);
    assert.match(stdout, /^ +GET \/ +200 hello from a pod +200 hello from a pod$/m);
    assert.match(stdout, /^[0-9a-f]{13} .* Ready +tour-gvisor +default +0 +gvisor$/m);
    assert.match(stdout, /^[0-9a-f]{13} .* Running +web +0 +[0-9a-f]{13} +tour-runc$/m);
    assert.ok(stdout.includes(`crictl --runtime-endpoint unix://${stack.root}/run/cribus.sock`));
    assert.match(stdout, /^ +metrics +http:/m);
    assert.match(stdout, /^ +dashboards +deploy\/grafana\//m);
    const long = stdout.split('\n').filter((line) => line.replace(stack.root, '/r').length > 100);
    assert.deepEqual(long, []);
    await assertGone('tour/web');
  });

  it('does it with any other image, which need neither serve pages nor keep running', async () => {
    const { code, stdout, stderr } = await stack.cribus('tour', '--image', registry.busybox);
    assert.equal(code, 0, stderr);
    assert.match(stdout, /^ +uname -a +Linux tour-runc .* Linux tour-gvisor /m);
    assert.match(stdout, /^ +GET \/ +no answer \(.*ECONNREFUSED/m);
    await assertGone('test/');
  });

  it('says in one sentence that an image is not there, and leaves nothing', async () => {
    const absent = `${registry.host}/test/absent:1`;
    const { code, stderr } = await stack.cribus('tour', '--image', absent);
    assert.equal(code, 1);
    assert.match(stderr, /^cribus: [^\n]*test\/absent[^\n]*\n$/);
    await assertGone('test/absent');
  });

  it('removes what it has made so far at Ctrl-C', async () => {
    const tour = startForeground(CRIBUS, ['tour', '--root', stack.root]);
    await tour.prints(/^Pod tour-runc runs/m);
    tour.kill('SIGINT');
    const { code } = await tour.ended;
    assert.equal(code, 130, tour.output());
    await assertGone('tour/web');
  });

  function registries(): string[] {
    return [...snapshotHost().processes].filter((one) => one.includes('docker-registry'));
  }

  async function assertGone(image: string): Promise<void> {
    assert.equal((await stack.cribus('pods')).stdout.trimEnd().split('\n').length, 1);
    assert.equal((await stack.cribus('ps', '--all')).stdout.trimEnd().split('\n').length, 1);
    assert.ok(!(await stack.cribus('images')).stdout.includes(image));
    assert.deepEqual(registries(), ours);
  }
});
