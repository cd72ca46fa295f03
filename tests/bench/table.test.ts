import assert from 'node:assert/strict';
import { describe, it } from 'mocha';
import { median, renderTable, Samples } from './table.ts';

describe('the table of the bench', () => {
  it('has the median of each row, and ours in proportion to each other one', () => {
    assert.equal(median([9, 1, 4]), 4);
    assert.equal(median([9, 1, 4, 2]), 3);
    const samples = new Samples();
    samples.add('start: ms', 'cribus', 300, 100, 200);
    samples.add('start: ms', 'containerd', 100);
    samples.add('only here: ms', 'cribus', 1.5);
    const lines = renderTable(samples, ['cribus', 'containerd']);
    const cells = lines.map((line) => line.split(/ {2,}| (?=\/)/));
    assert.deepEqual(cells, [
      ['medians', 'cribus', 'containerd', '/containerd'],
      ['start: ms', '200', '100', '2.00'],
      ['only here: ms', '1.50'],
    ]);
  });
});
