// Marks on real processes that leave the tree of their parent.

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { describe, it } from 'mocha';
import { createMark, listMarked } from './process-marks.ts';
import { signalProcess } from './processes.ts';
import { run, spawn } from './spawn.ts';

describe('a mark on a process', () => {
  it('is borne by all that it started, also what left its tree, and by nobody else', async () => {
    const [mark, other] = [createMark(), createMark()];
    const script = 'setsid sh -c "(sleep 60 &) ; true"; exec sleep 60';
    const child = spawn({ command: 'sh', args: ['-c', script], mark });
    const unmarked = spawn({ command: 'sleep', args: ['60'] });
    const deadline = performance.now() + 5_000;
    const names = () =>
      listMarked(mark).map(({ pid }) => readFileSync(`/proc/${pid}/comm`, 'utf8').trim());
    while (names().join() !== 'sleep,sleep' && performance.now() < deadline) {
      await new Promise((resolve) => setTimeout(resolve, 10));
    }
    assert.deepEqual(names(), ['sleep', 'sleep']);
    assert.deepEqual(listMarked(other), []);
    for (const each of listMarked(mark)) signalProcess(each, 'SIGKILL');
    unmarked.kill('SIGKILL');
    await Promise.all([child.exited, unmarked.exited]);
    assert.deepEqual(listMarked(mark), []);
  });

  it('is given to none while a living process bears it from the last round', async () => {
    const mark = createMark();
    const daemon = spawn({ command: 'sleep', args: ['60'], mark });
    const given = new Set<number>();
    for (let count = 0; count < 17_000; count += 1) given.add(createMark().slackNs);
    assert.equal(given.has(mark.slackNs), false);
    assert.ok(given.size > 16_000, `only ${given.size} marks are given`);
    daemon.kill('SIGKILL');
    await daemon.exited;
  });

  it('does not stay on the process that gives it', async () => {
    const before = readFileSync('/proc/self/timerslack_ns', 'utf8');
    const signal = AbortSignal.timeout(5_000);
    const args = ['/proc/self/timerslack_ns'];
    const marked = await run({ command: 'cat', args, mark: createMark(), signal });
    assert.notEqual(marked.stdout.toString(), before);
    assert.equal(readFileSync('/proc/self/timerslack_ns', 'utf8'), before);
    const after = await run({ command: 'cat', args, signal });
    assert.equal(after.stdout.toString(), before);
  });
});
