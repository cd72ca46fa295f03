import assert from 'node:assert/strict';
import { describe, it } from 'mocha';
import { releaseMemory } from './memory.ts';

describe('releaseMemory', () => {
  it('gives back what nobody holds any more', () => {
    let garbage: object[] | undefined = Array.from({ length: 200_000 }, (_, index) => ({ index }));
    const held = process.memoryUsage().heapUsed;
    assert.equal(garbage.length, 200_000);
    garbage = undefined;
    releaseMemory();
    assert.ok(process.memoryUsage().heapUsed < held - 4_000_000);
    assert.equal('gc' in globalThis, false, 'and leaves no collector lying about');
  });
});
