// Entries of layers that try to reach a directory of the host (`v`, the victim), or that no tar
// program writes; and names that can name no image.

import type { ArchiveEntry } from './archive.ts';

/** For the path of a victim. */
export type Entries = (v: string) => readonly ArchiveEntry[];

export function symlink(name: string, linkName: string): ArchiveEntry {
  return { name, type: '2', linkName };
}

export function link(name: string, linkName: string): ArchiveEntry {
  return { name, type: '1', linkName };
}

/** What must be refused, whatever else is in the layer. */
export const REFUSED_LAYERS: readonly (readonly [string, Entries])[] = [
  ['climbs out by ..', (v) => [{ name: `../../../../../..${v}/new`, data: 'x' }]],
  ['climbs out behind a directory', () => [{ name: 'a/' }, { name: 'a/../../new', data: 'x' }]],
  ['climbs out by its pax path', () => [{ name: 'a', pax: { path: '../new' }, data: 'x' }]],
  ['hard-links a file of the host by ..', (v) => [link('h', `../../../../../..${v}/secret`)]],
  ['hard-links a file of the host by its absolute path', (v) => [link('h', `${v}/secret`)]],
  [
    'hard-links a file of the host through a symlink',
    (v) => [symlink('s', v), link('h', 's/secret')],
  ],
  ['hard-links a directory', () => [{ name: 'd/' }, link('h', 'd')]],
  ['hard-links what is not there', () => [link('h', 'nothing')]],
  ['whites out ..', () => [{ name: 'a/' }, { name: 'a/.wh...' }]],
  ['whites out nothing', () => [{ name: '.wh.' }]],
  ['makes the root a file', () => [{ name: '.', type: '0', data: 'x' }]],
  [
    'has an endless symlink for a directory',
    () => [symlink('a', 'b'), symlink('b', 'a'), { name: 'a/x' }],
  ],
  ['has a wrong checksum', () => [{ name: 'a', badChecksum: true }]],
  ['has an unknown kind of entry', () => [{ name: 'a', type: 'Z' }]],
  ['ends within a file', () => [{ name: 'a', data: 'short', claimedSize: 100_000 }]],
  ['claims a file of exbibytes', () => [{ name: 'a', pax: { size: '9007199254740993' } }]],
  ['claims a negative size', () => [{ name: 'a', pax: { size: '-1' } }]],
  ['has a huge extended header', () => [{ name: 'a', pax: { comment: 'c'.repeat(3_000_000) } }]],
  ['has a broken extended header', () => [{ name: 'x', type: 'x', data: '99 path=a\n' }]],
  ['has an owner that is no number', () => [{ name: 'a', pax: { uid: 'root' } }]],
  ['has the owner -1', () => [{ name: 'a', uid: 0xffffffff }]],
  ['has a NUL within a name', () => [{ name: 'a', pax: { path: 'a\0b' } }]],
  ['has a name that is too long', () => [{ name: 'n'.repeat(300) }]],
  ['has a path that is too long', () => [{ name: `${'d/'.repeat(3000)}x` }]],
  ['ends with an extended header', () => [{ name: 'x', type: 'x', data: '10 path=a\n' }]],
];

/** What lands within the layer, and where; % is the victim. */
export const CONTAINED_LAYERS: readonly (readonly [string, Entries, string])[] = [
  ['absolute names', (v) => [{ name: `${v}/new`, data: 'x' }], '%/new'],
  ['names with . and inner ..', (v) => [{ name: `./a/./..${v}/new`, data: 'x' }], '%/new'],
  [
    'a file through an absolute symlink',
    (v) => [{ name: `${v}/` }, symlink('s', v), { name: 's/new', data: 'x' }],
    '%/new',
  ],
  [
    'a file through a symlink of many ..',
    (v) => [{ name: `${v}/` }, symlink('s', `../../../../../../..${v}`), { name: 's/new' }],
    '%/new',
  ],
  [
    'a file through two symlinks',
    (v) => [{ name: `${v}/` }, symlink('s', v), symlink('t', 's/../../..'), { name: `t${v}/new` }],
    '%/new',
  ],
  [
    'a file in the place of a symlink',
    (v) => [symlink('s', `${v}/secret`), { name: 's', data: 'overwritten' }],
    's',
  ],
  [
    'a directory in the place of a symlink',
    (v) => [symlink('s', v), { name: 's/', mode: 0o777 }, { name: 's/new', data: 'x' }],
    's/new',
  ],
  [
    'a whiteout and a directory through a symlink',
    (v) => [
      { name: `${v}/` },
      symlink('s', v),
      { name: 's/.wh.secret' },
      { name: 's/.wh..wh..opq' },
      { name: 's/sub/', mode: 0o777, uid: 9 },
    ],
    '%/sub',
  ],
  [
    'the mode and owner of what a symlink names',
    (v) => [symlink('s', `${v}/secret`), { ...symlink('s', `${v}/secret`), mode: 0o777, uid: 9 }],
    's',
  ],
  [
    'a hard link to a symlink that leads out, and then its content',
    (v) => [symlink('s', `${v}/secret`), link('h', 's'), { name: 'h', data: 'overwritten' }],
    'h',
  ],
];

/** What PullImage must refuse by its form alone. */
export const MALFORMED_REFERENCES: readonly string[] = [
  '',
  ' ',
  'host/UPPER',
  'a//b',
  '/a',
  'a/',
  'a:',
  'a:b:c',
  'a:tag with space',
  `a:${'t'.repeat(129)}`,
  'a@sha256:abc',
  'a@md5:d41d8cd98f00b204e9800998ecf8427e',
  `a@sha256:${'g'.repeat(64)}`,
  'http://host/a',
  'host:port/a',
  '../../etc/passwd',
  'a\0b',
  'a\nb',
  `${'a/'.repeat(200)}b`,
  `sha256:${'0'.repeat(64)}`,
];
