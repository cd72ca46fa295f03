// Reads tables that say which tests show what: in the first cell of a row what is promised, in the last
// one the tests, as `tests/e2e/pods.test.ts` › runs a pod, several separated by `<br>`.

import assert from 'node:assert/strict';
import { existsSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = dirname(dirname(dirname(fileURLToPath(import.meta.url))));

/** One row of a table: what is promised, and what is said to show it. */
export interface ShownRow {
  readonly row: string;
  readonly tests: readonly NamedTest[];
}

export interface NamedTest {
  /** From the root of the repository. */
  readonly file: string;
  readonly title: string;
}

/** The rows of every table in a file of the repository; those of the heads are left out. */
export function shownRows(table: string): ShownRow[] {
  const lines = readFileSync(join(root, table), 'utf8').split('\n');
  const rows = lines.filter(
    (line, at) => /^\| (?!---)/.test(line) && !/^\|(---|:--)/.test(lines[at + 1] ?? ''),
  );
  return rows.map((line) => {
    const cells = line.split(/(?<!\\)\|/).map((cell) => cell.trim());
    const [row = '', entries = ''] = [cells[1], cells.at(-2)];
    const named = entries.includes(' › ') ? entries.split('<br>') : [];
    return { row, tests: named.map((entry) => namedTest(entry, `${table}, row "${row}"`)) };
  });
}

function namedTest(entry: string, where: string): NamedTest {
  const match = /^`([^`]+)` › (.+)$/.exec(entry.trim());
  assert.ok(match !== null, `${where}: can't read "${entry}"`);
  return { file: match[1] ?? '', title: (match[2] ?? '').replaceAll('\\|', '|') };
}

/** The named tests that are not there, each with its row. */
export function missingTests(rows: readonly ShownRow[]): string[] {
  return rows.flatMap(({ row, tests }) =>
    tests
      .filter(({ file, title }) => !existsSync(join(root, file)) || !titlesOf(file).has(title))
      .map(({ file, title }) => `${row}: ${file} › ${title}`),
  );
}

const titles = new Map<string, ReadonlySet<string>>();

/**
 * The titles of a test file, as they are written: a template keeps its `${…}`. Also those in a list
 * of cases, `{ title: '…' }`, which a loop makes tests of.
 */
function titlesOf(file: string): ReadonlySet<string> {
  const known = titles.get(file);
  if (known !== undefined) return known;
  const text = readFileSync(join(root, file), 'utf8');
  const found = [...text.matchAll(/\b(?:it\(|title:)\s*(['"`])((?:\\.|(?!\1).)*)\1/gs)];
  const own = new Set(found.map((match) => (match[2] ?? '').replaceAll(/\\(['"`])/g, '$1')));
  titles.set(file, own);
  return own;
}
