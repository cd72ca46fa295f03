// Undo in reverse, bounded, and never instead of the original error.

import assert from 'node:assert/strict';
import { describe, it } from 'mocha';
import { withRollback } from './rollback.ts';
import { createTestLog } from './testing/fake-service.ts';

describe('withRollback', () => {
  it('undoes in reverse after a failure, and goes on when an undo fails', async () => {
    const { log } = createTestLog();
    const undone: string[] = [];
    const failed: string[] = [];
    const original = new Error('the work');
    await assert.rejects(
      withRollback({ log, onUndoFailed: (step) => void failed.push(step) }, async (rollback) => {
        rollback.add('one', () => void undone.push('one'));
        rollback.add('two', async () => {
          throw new Error('the undo');
        });
        rollback.add('three', async () => void undone.push('three'));
        throw original;
      }),
      (error) => error === original,
    );
    assert.deepEqual(undone, ['three', 'one']);
    assert.deepEqual(failed, ['two']);
  });

  it('leaves an undo that hangs behind when its time is over', async () => {
    const { log } = createTestLog();
    const undone: string[] = [];
    const failed: string[] = [];
    const options = {
      log,
      undoTimeoutMs: 50,
      onUndoFailed: (step: string) => void failed.push(step),
    };
    await assert.rejects(
      withRollback(options, async (rollback) => {
        rollback.add('first', () => void undone.push('first'));
        rollback.add('hangs', () => new Promise(() => {}));
        throw new Error('the work');
      }),
      /the work/,
    );
    assert.deepEqual(failed, ['hangs']);
    assert.deepEqual(undone, ['first']);
  });

  it('undoes nothing after success', async () => {
    const { log } = createTestLog();
    const result = await withRollback({ log }, async (rollback) => {
      rollback.add('never', () => assert.fail('undone'));
      return 7;
    });
    assert.equal(result, 7);
  });
});
