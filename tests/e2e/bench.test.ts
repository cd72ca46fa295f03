// The bench in its smallest form: that it measures everything it names and leaves the host as it was.
// What the numbers are is no matter of a test.

import assert from 'node:assert/strict';
import { before, describe, it } from 'mocha';
import { assertNothingLeaked, type HostSnapshot, snapshotHost } from './harness/leaks.ts';
import { PROJECT_ROOT, runCommand } from './harness/stack.ts';

describe('npm run bench', () => {
  let host: HostSnapshot;

  before(() => {
    host = snapshotHost();
  });

  it('prints medians of starts and stops, ExecSync, lists and memory, and leaves nothing', async () => {
    const words = ['run', '--silent', 'bench', '--', '--rounds', '1', '--pods', '2'];
    const args = [...words, '--only', 'cribus'];
    const { code, stdout, stderr } = await runCommand('npm', args, {}, { cwd: PROJECT_ROOT });
    assert.equal(code, 0, stdout + stderr);
    for (const row of [
      'start a pod, one by one: ms',
      'stop and remove it: ms',
      'ExecSync true: ms',
      '10 at once: all of them started: ms',
      '10 at once: stop of each: ms',
      'ListContainers at 2 pods: ms',
      'ListPodSandbox at 2 pods: ms',
      'memory at 2 pods: MB PSS',
    ]) {
      const line = stdout.split('\n').find((one) => one.startsWith(`${row} `));
      const median = Number(line?.slice(row.length).trim());
      assert.ok(median > 0, `${row}: ${line}`);
    }
    assertNothingLeaked(host);
  });
});
