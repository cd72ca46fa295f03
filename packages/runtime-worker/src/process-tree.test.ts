// Trees of processes, from /proc and from the table of an engine.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { describe, it } from 'mocha';
import { parseParents } from './engine.ts';
import { below, descendants } from './process-tree.ts';

describe('the processes below a process', () => {
  it('are found in /proc at every depth', async () => {
    const shell = spawn('/bin/sh', ['-c', 'sleep 30 & echo; (sleep 30; true)'], { detached: true });
    try {
      await new Promise((resolve) => shell.stdout.once('data', resolve));
      const deadline = performance.now() + 5_000;
      while (descendants(shell.pid ?? 0).length < 3 && performance.now() < deadline) {
        await new Promise((resolve) => setTimeout(resolve, 10));
      }
      assert.equal(descendants(shell.pid ?? 0).length, 3);
    } finally {
      process.kill(-(shell.pid ?? 0), 'SIGKILL');
    }
  });

  it('are found in what runsc ps prints', () => {
    const table = [
      'UID       PID       PPID      C         TTY       STIME     TIME      CMD',
      '0         2         0         0         ?         21:17     70ms      sh',
      '0         4         0         0         ?         21:17     10ms      sh -c x',
      '0         5         4         2         ?         21:17     10ms      sleep',
      '0         6         5         1         ?         21:17     10ms      sleep',
      '0         9         2         29        ?         21:17     10ms      sleep',
    ];
    const parents = parseParents(`${table.join('\n')}\n`);
    assert.deepEqual(below(4, parents), [5, 6]);
    assert.deepEqual(below(9, parents), []);
    assert.deepEqual(below(4, parseParents('')), []);
    assert.deepEqual(below(1, parseParents('{"msg": "no table"}')), []);
  });
});
