// The package removed and purged while a pod runs: nothing of it stays.

import assert from 'node:assert/strict';
import { existsSync, readFileSync } from 'node:fs';
import { before, describe, it } from 'mocha';
import { CONFIG, pidOf, provideNode, run, startPod } from './installed-node.ts';
import { assertNothingIsLeft } from './nothing-left.ts';

describe('the package at its end', () => {
  let pid: string;
  before(async () => {
    const node = await provideNode();
    const { containerId } = await startPod(node);
    pid = pidOf(containerId);
    await node.close();
  });

  it('ends the pods when it is removed, and keeps what a person configured', () => {
    run('dpkg', '--remove', 'cribus');
    assert.ok(!existsSync(`/proc/${pid}`), 'the container is gone');
    assert.ok(!existsSync('/run/cribus'));
    assert.match(readFileSync(CONFIG, 'utf8'), /driver = /);
  });

  it('leaves the machine as it was when it is purged', () => {
    run('dpkg', '--purge', 'cribus');
    assertNothingIsLeft();
  });
});
