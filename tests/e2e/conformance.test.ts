// `pnpm conformance` itself. critest is no part of this project, so a program that writes a report as
// critest does stands in for it here; what it is given is a stack that works.

import assert from 'node:assert/strict';
import { chmodSync, existsSync, readFileSync } from 'node:fs';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'mocha';
import { assertNothingLeaked, type HostSnapshot, snapshotHost } from './harness/leaks.ts';
import { PROJECT_ROOT, runCommand } from './harness/stack.ts';

/** What critest v1.36 has in it, by which a version is told. */
const DIGEST = '9700f9a2f5bf2c45f2f605a0bd3bce7cf37420ec9d3ed50ac2758413308766bf';
const STAND_IN = `#!/bin/sh
# ${DIGEST}
for word in "$@"; do
  case $word in
    --ginkgo.junit-report=*) report=\${word#*=} ;;
    -runtime-endpoint=unix://*) [ -S "\${word#*unix://}" ] && socket=passed ;;
    -runtime-handler=*) handler=\${word#*=} ;;
  esac
done
echo "$@" >>"$CRITEST_SEEN"
cat >"$report" <<X
<testsuites><testsuite name="x">
<testcase name="[It] [k8s.io] The socket of $handler is there" status="\${socket:-failed}" time="1"></testcase>
<testcase name="[It] [k8s.io] AppArmor should work" status="skipped" time="0"><skipped message="skipped - no"/></testcase>
$CRITEST_MORE
</testsuite></testsuites>
X
`;

describe('pnpm conformance', () => {
  let directory: string;
  let host: HostSnapshot;
  let seen: string;

  before(async () => {
    host = snapshotHost();
    directory = await mkdtemp(join(tmpdir(), 'cribus-critest-'));
    seen = join(directory, 'seen');
    await writeFile(join(directory, 'critest'), STAND_IN);
    chmodSync(join(directory, 'critest'), 0o755);
  });
  after(async () => {
    await rm(directory, { recursive: true });
    assertNothingLeaked(host);
  });

  const conformance = (
    args: readonly string[],
    environment: Readonly<Record<string, string>> = {},
  ) =>
    runCommand(
      process.execPath,
      [join(PROJECT_ROOT, 'scripts', 'conformance.mjs'), ...args],
      {
        PATH: `${directory}:${process.env['PATH']}`,
        CRITEST_SEEN: seen,
        CRITEST_MORE: '',
        ...environment,
      },
      { cwd: PROJECT_ROOT },
    );

  it('without a critest on the PATH says how to get one, and fails', async () => {
    const { code, stderr } = await conformance([], { PATH: '/nonexistent' });
    assert.equal(code, 1);
    assert.match(stderr, /no critest on the PATH/);
    assert.match(stderr, /github\.com\/kubernetes-sigs\/cri-tools/);
    assert.match(stderr, /make critest/);
  });

  it('runs it against a stack of its own for the handler, prints every name and the counts, and leaves nothing', async () => {
    const { code, stdout, stderr } = await conformance(['crun', '--runs', '2', '--websocket']);
    assert.equal(code, 0, stdout + stderr);
    assert.match(stdout, /^passed {3}The socket of crun is there$/m);
    assert.match(stdout, /^skipped {2}AppArmor should work: .*kernel/m);
    assert.equal([...stdout.matchAll(/^crun: 1 passed, 0 failed, 1 skipped$/gm)].length, 4);
    const runs = readFileSync(seen, 'utf8').trim().split('\n');
    assert.equal(runs.length, 2);
    const [first = ''] = runs;
    assert.match(first, /-runtime-handler=crun /);
    assert.match(first, /-websocket-exec -websocket-attach -websocket-portforward/);
    const root = /unix:\/\/(\S*)\/run\/cribus\.sock/.exec(first)?.[1] ?? assert.fail();
    assert.equal(existsSync(root), false);
  });

  it('fails where a spec fails that no limit of the host or of the runtime explains', async () => {
    const more =
      '<testcase name="[It] [k8s.io] Pods should fly" status="failed" time="1"><failure message="they fell"/></testcase>';
    const { code, stdout } = await conformance(['runc'], { CRITEST_MORE: more });
    assert.equal(code, 1);
    assert.match(stdout, /^failed {3}Pods should fly: they fell$/m);
    assert.match(stdout, /no limit explains it: runc: Pods should fly/);
  });

  it('fails with the end of its words where critest gives no report', async () => {
    const broken = join(directory, 'broken');
    await writeFile(join(directory, 'critest'), `#!/bin/sh\n# ${DIGEST}\necho "can't connect"\n`);
    const { code, stderr } = await conformance(['runc'], { CRITEST_SEEN: broken });
    assert.equal(code, 1);
    assert.match(stderr, /can't connect/);
  });
});
