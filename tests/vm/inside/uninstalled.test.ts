// deploy/uninstall.sh while a pod runs: nothing of the stack stays.

import assert from 'node:assert/strict';
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { before, describe, it } from 'mocha';
import { CONFIG, pidOf, provideNode, run, startPod, TREE } from './installed-node.ts';
import { assertNothingIsLeft } from './nothing-left.ts';

describe('deploy/uninstall.sh', () => {
  let pid: string;
  before(async () => {
    const node = await provideNode('systemd', () => {
      run(join(TREE, 'deploy', 'install.sh'));
    });
    const { containerId } = await startPod(node);
    pid = pidOf(containerId);
    await node.close();
  });

  it('ends the pods, takes the programs away, and keeps what a person configured', () => {
    run(join(TREE, 'deploy', 'uninstall.sh'));
    assert.ok(!existsSync(`/proc/${pid}`), 'the container is gone');
    assert.ok(!existsSync('/usr/lib/cribus') && !existsSync('/run/cribus'));
    assert.match(readFileSync(CONFIG, 'utf8'), /driver = /);
  });

  it('leaves the machine as it was with --purge', () => {
    run(join(TREE, 'deploy', 'uninstall.sh'), '--purge');
    assertNothingIsLeft();
  });
});
