// tests/e2e/README.md says which test shows which sentence of what was promised. A row that names a
// file or a title that isn't there is a promise without a test.

import assert from 'node:assert/strict';
import { existsSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { describe, it } from 'mocha';

const root = dirname(dirname(dirname(fileURLToPath(import.meta.url))));
const TABLE = 'tests/e2e/README.md';

interface Named {
  readonly row: string;
  /** From the root of the repository. */
  readonly file: string;
  readonly title: string;
}

/** Entries look like `tests/e2e/pods.test.ts` › runs a pod; several are separated by `<br>`. */
function namedTests(): Named[] {
  const rows = readFileSync(join(root, TABLE), 'utf8')
    .split('\n')
    .filter((line) => line.startsWith('| ') && line.includes(' › '));
  return rows.flatMap((line) => {
    const cells = line.split(/(?<!\\)\|/).map((cell) => cell.trim());
    const [, row = '', tests = ''] = cells;
    return tests.split('<br>').map((entry) => {
      const match = /^`([^`]+)` › (.+)$/.exec(entry.trim());
      assert.ok(match !== null, `${TABLE}: can't read "${entry}" in the row "${row}"`);
      return { row, file: match[1] ?? '', title: (match[2] ?? '').replaceAll('\\|', '|') };
    });
  });
}

/**
 * The titles of a test file, as they are written: a template keeps its `${…}`. Also those in a list
 * of cases, `{ title: '…' }`, which a loop makes tests of.
 */
function titlesOf(file: string): ReadonlySet<string> {
  const text = readFileSync(join(root, file), 'utf8');
  const titles = [...text.matchAll(/\b(?:it\(|title:)\s*(['"`])((?:\\.|(?!\1).)*)\1/gs)];
  return new Set(titles.map((match) => (match[2] ?? '').replaceAll(/\\(['"`])/g, '$1')));
}

describe('the table of what is shown by which test', () => {
  const named = namedTests();

  it('names only tests that exist', () => {
    const missing = named
      .filter(({ file, title }) => !existsSync(join(root, file)) || !titlesOf(file).has(title))
      .map(({ row, file, title }) => `${row}: ${file} › ${title}`);
    assert.deepEqual(missing, []);
    assert.ok(named.length > 60, `saw only ${named.length} tests in ${TABLE}`);
  });

  it('has a test in every row', () => {
    const rows = readFileSync(join(root, TABLE), 'utf8')
      .split('\n')
      .filter((line) => /^\| (?!---|Sentence)/.test(line));
    assert.deepEqual(
      rows.filter((line) => !line.includes(' › ')),
      [],
    );
  });
});
