import assert from 'node:assert/strict';
import { describe, it } from 'mocha';
import { budgetOf, VERBS } from './subjects.ts';

describe('the budget of an operation', () => {
  const checkpoint = (timeoutS: bigint) =>
    budgetOf('checkpoint-container', { containerId: 'c', location: '/a', timeoutS });
  const { budgetMs } = VERBS['checkpoint-container'];

  it('is what the table says, and on top of it what a request asks for', () => {
    assert.equal(budgetOf('remove-container', { containerId: 'c' }), 120_000);
    assert.equal(budgetOf('stop-container', { containerId: 'c', timeoutS: 30n }), 150_000);
    assert.deepEqual([0n, -1n, 1200n].map(checkpoint), [budgetMs, budgetMs, budgetMs + 1_200_000]);
  });

  it('stays below what a timer of Node can hold, and is none for a pull', () => {
    assert.ok(checkpoint(2n ** 62n) < 2 ** 31);
    const pull = { image: undefined, auth: undefined, sandboxConfig: undefined };
    assert.equal(budgetOf('pull-image', pull as never), 0);
  });
});
