// tests/e2e/README.md says which test shows which sentence of what was promised. A row that names a
// file or a title that isn't there is a promise without a test.

import assert from 'node:assert/strict';
import { describe, it } from 'mocha';
import { missingTests, shownRows } from './shown-by.ts';

const TABLE = 'tests/e2e/README.md';

describe('the table of what is shown by which test', () => {
  const rows = shownRows(TABLE);

  it('names only tests that exist', () => {
    assert.deepEqual(missingTests(rows), []);
    const count = rows.flatMap(({ tests }) => tests).length;
    assert.ok(count > 60, `saw only ${count} tests in ${TABLE}`);
  });

  it('has a test in every row', () => {
    const empty = rows.filter(({ tests }) => tests.length === 0).map(({ row }) => row);
    assert.deepEqual(empty, []);
  });
});
