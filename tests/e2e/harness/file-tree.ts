// A tree of files as data, with everything that a layer can say about them; and the tree that GNU tar
// makes of the same layers, to compare with.

import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { lstatSync, mkdirSync, readdirSync, readFileSync, readlinkSync, rmSync } from 'node:fs';
import { getXattr, listXattrs } from '@cribus/host/jail.ts';

/** Path below the root to a line of everything about it. Names are read as latin1, to keep bytes. */
export type FileTree = Readonly<Record<string, string>>;

/** A kernel's own bookkeeping in a layer's directory, which a mount doesn't show. */
const HIDDEN_XATTRS = /^trusted\.overlay\./;

/** Reads a tree without following symlinks. */
export function readTree(root: string): FileTree {
  const tree: Record<string, string> = {};
  const firstOf = new Map<string, string>();
  const visit = (relative: string) => {
    const path = Buffer.from(`${root}/${relative}`, 'latin1');
    const stats = lstatSync(path, { bigint: true });
    const inode = `${stats.dev}:${stats.ino}`;
    const facts: Record<string, unknown> = {
      mode: stats.mode.toString(8),
      owner: `${stats.uid}:${stats.gid}`,
      mtimeNs: String(stats.mtimeNs),
    };
    if (stats.isDirectory()) {
      for (const name of readdirSync(path, 'latin1').sort()) {
        visit(relative === '' ? name : `${relative}/${name}`);
      }
    } else {
      facts['links'] = Number(stats.nlink);
      if (stats.nlink > 1n) {
        firstOf.set(inode, firstOf.get(inode) ?? relative);
        facts['sameAs'] = firstOf.get(inode);
      }
    }
    if (stats.isSymbolicLink()) facts['target'] = readlinkSync(path, 'latin1');
    if (stats.isFile()) {
      facts['sha256'] = createHash('sha256').update(readFileSync(path)).digest('hex');
    }
    if (stats.isCharacterDevice() || stats.isBlockDevice()) facts['rdev'] = String(stats.rdev);
    const xattrs = xattrsOf(`${root}/${relative}`, relative);
    if (xattrs.length > 0) facts['xattrs'] = xattrs;
    tree[relative === '' ? '.' : relative] = JSON.stringify(facts);
  };
  visit('');
  return tree;
}

function xattrsOf(path: string, relative: string): string[] {
  // The system calls take text; names beyond ASCII have no attributes in these tests.
  if (/[^\x20-\x7e]/.test(relative)) return [];
  return listXattrs(path)
    .filter((name) => !HIDDEN_XATTRS.test(name))
    .sort()
    .map((name) => `${name}=${getXattr(path, name).toString('hex')}`);
}

/**
 * Unpacks layers one over the other as GNU tar does, whiteouts (image-spec, layer.md) applied by hand
 * before each: the reference that an image's root must equal.
 */
export function unpackWithGnuTar(layers: readonly Buffer[], directory: string): void {
  mkdirSync(directory, { recursive: true });
  for (const layer of layers) {
    const names = execFileSync('tar', ['-tf', '-', '--quoting-style=literal'], { input: layer })
      .toString('latin1')
      .split('\n');
    for (const name of names) applyWhiteout(name.replace(/^\.?\//, ''), directory);
    execFileSync(
      'tar',
      [
        ...['-xpf', '-', '-C', directory, '--numeric-owner', '--same-owner'],
        ...['--xattrs', '--xattrs-include=*', '--exclude=.wh.*'],
      ],
      { input: layer, stdio: ['pipe', 'pipe', 'pipe'] },
    );
  }
}

function applyWhiteout(name: string, directory: string): void {
  const match = /^(.*\/)?\.wh\.([^/]+)$/.exec(name);
  if (match === null) return;
  const [, parent = '', hidden = ''] = match;
  if (hidden !== '.wh..opq') {
    rmSync(`${directory}/${parent}${hidden}`, { recursive: true, force: true });
    return;
  }
  for (const one of readdirSync(`${directory}/${parent}`)) {
    rmSync(`${directory}/${parent}${one}`, { recursive: true, force: true });
  }
}

/** Where two trees differ: `path: is …, should be …`. */
export function differences(is: FileTree, should: FileTree): string[] {
  return [...new Set([...Object.keys(is), ...Object.keys(should)])]
    .sort()
    .filter((path) => is[path] !== should[path])
    .map((path) => `${path}: is ${is[path] ?? 'absent'}, should be ${should[path] ?? 'absent'}`);
}
