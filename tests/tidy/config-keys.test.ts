// Keys of the configuration in what is written for people: each one that a page names exists, and the pages
// for those who come from another runtime have a row for each key of it.

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { describe, it } from 'mocha';
import { CONTAINERD_KEYS, CRIO_KEYS } from './peer-keys.ts';

const root = dirname(dirname(dirname(fileURLToPath(import.meta.url))));
const textOf = (path: string) => readFileSync(join(root, path), 'utf8');
const MIGRATION = ['containerd', 'cri-o', 'docker'].map((name) => `docs/migration/from-${name}.md`);
const PAGES = ['README.md', 'docs/kubernetes.md', 'docs/image-verification.md', ...MIGRATION];
/** Of the kernel, and not of ours. */
const SYSCTL = /^(net|kernel|fs)\./;
const FILE_NAME = /\.(toml|conf|json|ya?ml|d)$/;

/** Keys with their tables; `runtimes.handlers.NAME.engine` for that of any handler. */
function keysOfToml(text: string): ReadonlySet<string> {
  const keys = new Set<string>();
  let table = '';
  for (const line of text.split('\n')) {
    const header = /^\[([\w.]+)\]/.exec(line)?.[1];
    if (header !== undefined) {
      table = header.replace(/^runtimes\.handlers\.\w+$/, 'runtimes.handlers.NAME');
      const names = table.split('.');
      for (const end of names.keys()) keys.add(names.slice(0, end + 1).join('.'));
    }
    const key = /^(\w+) = /.exec(line)?.[1];
    if (key !== undefined) keys.add(`${table}.${key}`);
  }
  return keys;
}

const reference = textOf('docs/reference/config.md');
const known = keysOfToml(/```toml\n([\s\S]*?)\n```/.exec(reference)?.[1] ?? '');
const sections = new Set([...known].map((key) => key.split('.')[0] ?? ''));

/** What a text names as a key of ours, with a value behind it or not. */
function keysNamed(text: string): string[] {
  const named = [...text.matchAll(/`([a-z_]+(?:\.[\w<>]+)+)(?: = [^`]*)?`/g)];
  const keys = named.map((match) => (match[1] ?? '').replace('<name>', 'NAME'));
  return keys.filter((key) => !FILE_NAME.test(key));
}

/** The rows of the tables of a page whose left column is another runtime's. */
function rowsOf(page: string): { readonly theirs: string; readonly ours: string }[] {
  return textOf(page)
    .split('\n')
    .filter((line) => line.startsWith('| ') && !line.includes('cribus.toml'))
    .map((line) => {
      const [, theirs = '', ours = ''] = line.split('|');
      return { theirs, ours };
    });
}

describe('the keys of the configuration in the documents', () => {
  it('exist, each that a page names or shows in a file', () => {
    assert.ok(known.size > 40, `saw only ${known.size} keys in the reference`);
    let seen = 0;
    for (const page of PAGES) {
      const text = textOf(page);
      const named = keysNamed(text).filter((key) => sections.has(key.split('.')[0] ?? ''));
      const files = [...text.matchAll(/```toml\n([\s\S]*?)\n```/g)].map((match) => match[1] ?? '');
      const ours = files.filter((file) => !/hosts\.toml|^server = /m.test(file));
      // Theirs, in the left columns, may have names that begin like ours.
      const theirs = MIGRATION.includes(page)
        ? rowsOf(page).flatMap((row) => keysNamed(row.theirs))
        : [];
      const all = [
        ...named.filter((key) => !theirs.includes(key)),
        ...ours.flatMap((file) => [...keysOfToml(file)]),
      ];
      seen += all.length;
      assert.deepEqual(
        all.filter((key) => !known.has(key)),
        [],
        page,
      );
    }
    assert.ok(seen > 60, `saw only ${seen} keys in the pages`);
  });

  it('are all that stands beside the keys of another runtime', () => {
    for (const page of MIGRATION) {
      const named = rowsOf(page).flatMap(({ ours }) => keysNamed(ours));
      assert.ok(named.length > 5, `saw only ${named.length} keys in ${page}`);
      const strange = named.filter((key) => !known.has(key) && !SYSCTL.test(key));
      assert.deepEqual(strange, [], page);
    }
  });

  it('have a row for each key of containerd and of CRI-O, and an answer in it', () => {
    for (const [page, keys] of [
      ['docs/migration/from-containerd.md', CONTAINERD_KEYS],
      ['docs/migration/from-cri-o.md', CRIO_KEYS],
    ] as const) {
      const rows = rowsOf(page);
      const left = rows.map(({ theirs }) => theirs).join('\n');
      const words = new Set(left.match(/[\w]+/g));
      assert.deepEqual(
        keys.filter((key) => !words.has(key)),
        [],
        page,
      );
      assert.deepEqual(
        rows.filter(({ ours }) => ours.trim() === ''),
        [],
        page,
      );
    }
  });
});
