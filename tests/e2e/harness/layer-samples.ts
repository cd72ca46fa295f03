// Layers with one of everything, layers that change each other, and a tree of real files for GNU tar.

import { execFileSync } from 'node:child_process';
import { linkSync, lutimesSync, mkdirSync, symlinkSync, utimesSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setXattr } from '@cribus/host/jail.ts';
import { type ArchiveEntry, archive } from './archive.ts';

const NS = 1_000_000_000n;
/** Nanoseconds since 1970. */
export const time = (seconds: bigint, ns = 0n) => seconds * NS + ns;
/** Numbers of /dev/zero and of a loop device, and ones that need every bit of a device number. */
const LARGE_DEVICE = { major: 2049, minor: 1_048_000 };
/** Where each of them puts its files. */
export const ROOT = 'tree';

/** One of each kind and attribute; each entry one file. */
export function everyKind(): ArchiveEntry[] {
  const file = (name: string, rest: Partial<ArchiveEntry> = {}): ArchiveEntry => ({
    name: `${ROOT}/${name}`,
    data: name,
    ...rest,
  });
  return [
    {
      name: `${ROOT}/`,
      mode: 0o751,
      uid: 11,
      gid: 12,
      mtimeNs: time(1_234_567_890n, 123_456_789n),
    },
    file('plain'),
    file('empty', { data: '' }),
    file('old-kind', { type: '\0' }),
    file('contiguous', { type: '7' }),
    file('large', { data: Buffer.alloc(3_000_001, 'abc') }),
    file('nanoseconds', { mtimeNs: time(1_700_000_000n, 987_654_321n) }),
    file('before-1970', { pax: { mtime: '-1000.5' } }),
    file('after-2038', { mtimeNs: time(5_000_000_000n) }),
    file('owner', { uid: 1000, gid: 2000 }),
    file('large-owner', { uid: 3_000_000, gid: 4_200_000_000 }),
    file('setuid', { mode: 0o4755, uid: 1000 }),
    file('setgid', { mode: 0o2755, gid: 50 }),
    file('no-permissions', { mode: 0o000 }),
    file('capable', {
      mode: 0o755,
      // cap_net_raw+ep, VFS_CAP_REVISION_2 of linux/capability.h.
      xattrs: {
        'security.capability': Buffer.from('0100000200200000000000000000000000000000', 'hex'),
      },
    }),
    file('attributes', {
      uid: 7,
      xattrs: { 'user.text': 'a value = with signs', 'user.bytes': Buffer.from([0, 1, 255, 10]) },
    }),
    file('trusted', { xattrs: { 'trusted.note': 'kept' } }),
    file('hard-1', { type: '1', data: '', linkName: `${ROOT}/attributes` }),
    file('hard-2', { type: '1', data: '', linkName: `${ROOT}/hard-1` }),
    file('link', { type: '2', data: '', linkName: 'plain', uid: 5, gid: 6, mtimeNs: time(9n, 8n) }),
    file('absolute-link', { type: '2', data: '', linkName: '/etc/passwd' }),
    file('dangling', { type: '2', data: '', linkName: '../../../nowhere/at/all' }),
    file('hard-to-link', { type: '1', data: '', linkName: `${ROOT}/link` }),
    file('character', { type: '3', data: '', major: 1, minor: 5, mode: 0o666, uid: 1 }),
    file('block', { type: '4', data: '', major: 7, minor: 0, mode: 0o660, gid: 6 }),
    file('large-device', { type: '3', data: '', mode: 0o600, ...LARGE_DEVICE }),
    file('fifo', { type: '6', data: '', mode: 0o622 }),
    file('hard-fifo', { type: '1', data: '', linkName: `${ROOT}/fifo` }),
    { name: `${ROOT}/sticky/`, mode: 0o1777, mtimeNs: time(42n, 7n) },
    { name: `${ROOT}/setgid-dir/`, mode: 0o2750, gid: 33, xattrs: { 'user.kind': 'directory' } },
    file('setgid-dir/inside', { gid: 0 }),
    { name: `${ROOT}/closed/`, mode: 0o000, mtimeNs: time(43n) },
    file('closed/inside'),
    file(`${'n'.repeat(255)}`),
    { name: `${ROOT}/${'d'.repeat(120)}/` },
    { name: `${ROOT}/${'d'.repeat(120)}/${'e'.repeat(200)}/` },
    file(`${'d'.repeat(120)}/${'e'.repeat(200)}/deep`, { mtimeNs: time(3n, 3n) }),
    file('long-link', { type: '2', data: '', linkName: `${'l'.repeat(200)}/${'m'.repeat(200)}` }),
    file('spaces and\ttabs "quotes" $(no)'),
    file('-rf'),
    file('.hidden'),
    file('wh.not-a-whiteout'),
  ];
}

/** Five layers, each changing what the ones before left. */
export function sequence(): Buffer[] {
  const root = (at: bigint): ArchiveEntry => ({ name: `${ROOT}/`, mtimeNs: time(at) });
  return [
    archive([
      root(1n),
      { name: `${ROOT}/replaced`, data: 'first', uid: 1, mode: 0o600 },
      { name: `${ROOT}/hidden`, data: 'goes' },
      { name: `${ROOT}/kept`, data: 'stays', uid: 2 },
      { name: `${ROOT}/dir/`, mode: 0o700 },
      { name: `${ROOT}/dir/a`, data: 'a' },
      { name: `${ROOT}/dir/b`, data: 'b' },
      { name: `${ROOT}/gone/` },
      { name: `${ROOT}/gone/x`, data: 'x' },
      { name: `${ROOT}/link`, type: '2', linkName: 'kept' },
    ]),
    archive([
      root(2n),
      { name: `${ROOT}/replaced`, data: 'second', uid: 8, mode: 0o644, mtimeNs: time(2n, 2n) },
      { name: `${ROOT}/.wh.hidden` },
      { name: `${ROOT}/.wh.gone` },
      { name: `${ROOT}/dir/`, mode: 0o755, uid: 3, mtimeNs: time(22n) },
      { name: `${ROOT}/dir/.wh.a` },
      { name: `${ROOT}/dir/c`, data: 'c' },
    ]),
    archive([
      root(3n),
      { name: `${ROOT}/hidden`, data: 'is back', gid: 4 },
      { name: `${ROOT}/link`, data: 'no link any more' },
      { name: `${ROOT}/dir/`, mode: 0o711, mtimeNs: time(33n) },
      { name: `${ROOT}/dir/a`, type: '2', linkName: 'b' },
    ]),
    archive([
      root(4n),
      { name: `${ROOT}/twice`, data: 'the first of two in one layer' },
      { name: `${ROOT}/twice`, data: 'the second wins', mode: 0o640 },
      { name: `${ROOT}/.wh.kept` },
      { name: `${ROOT}/.wh.never-there` },
    ]),
    archive([root(5n), { name: `${ROOT}/last`, data: 'last' }]),
  ];
}

/** Real files for GNU tar to read, within what each format can say. */
export function makeSourceTree(root: string, format: 'gnu' | 'posix' | 'ustar' | 'v7'): void {
  const long = format === 'v7' || format === 'ustar' ? 'n'.repeat(60) : 'n'.repeat(200);
  const deep = join(root, 'd'.repeat(20), format === 'v7' ? 'e' : 'e'.repeat(60));
  mkdirSync(deep, { recursive: true });
  writeFileSync(join(deep, long.slice(0, format === 'v7' ? 20 : undefined)), 'deep');
  writeFileSync(join(root, 'empty'), '');
  writeFileSync(join(root, 'large'), Buffer.alloc(1_500_000, 'large'), { mode: 0o640 });
  linkSync(join(root, 'large'), join(root, 'hard'));
  symlinkSync('large', join(root, 'link'));
  lutimesSync(join(root, 'link'), 1_000_000, 1_000_000);
  utimesSync(join(root, 'empty'), 1_600_000_000, 1_600_000_000);
  execFileSync('chown', ['-h', '1234:4321', join(root, 'empty'), join(root, 'link')]);
  if (format !== 'v7') {
    execFileSync('mknod', ['-m', '622', join(root, 'fifo'), 'p']);
    execFileSync('mknod', ['-m', '660', join(root, 'device'), 'c', '10', '200']);
  }
  if (format !== 'posix') return;
  setXattr(join(root, 'large'), 'user.note', Buffer.from('kept'));
  symlinkSync('t'.repeat(300), join(root, 'long-link'));
  writeFileSync(join(root, 'ünïcödé €'), 'text');
}
