import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { afterEach, describe, it } from 'mocha';
import { moveOomScores } from './oom-score.ts';
import { type Child, spawn } from './spawn.ts';

describe('the out-of-memory scores of running processes', () => {
  const children: Child[] = [];
  afterEach(async () => {
    for (const child of children.splice(0)) {
      process.kill(child.pid, 'SIGKILL');
      await child.exited;
    }
  });
  const score = (pid: number) => Number(readFileSync(`/proc/${pid}/oom_score_adj`, 'latin1'));

  it('move for all but those that have set their own, and back', () => {
    const pids = [1, 2].map(() => {
      const child = spawn({ command: 'sleep', args: ['30'] });
      children.push(child);
      return child.pid;
    });
    const [first = 0, second = 0] = pids;
    const own = score(first);
    const [one, other] = [Math.min(own + 100, 999), 1000];
    moveOomScores([second], { from: own, to: other });
    const undo = moveOomScores([first, second, 4_000_000], { from: own, to: one });
    assert.deepEqual(pids.map(score), [one, other]);
    undo();
    assert.deepEqual(pids.map(score), [own, other]);
  });
});
