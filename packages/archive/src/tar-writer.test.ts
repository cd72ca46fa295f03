import assert from 'node:assert/strict';
import { describe, it } from 'mocha';
import { type TarEntry, TarReader } from './tar-reader.ts';
import { encodeHeader, endOfArchive, padding } from './tar-writer.ts';

const PLAIN: TarEntry = {
  kind: 'file',
  name: 'a',
  linkName: '',
  mode: 0o644,
  uid: 0,
  gid: 0,
  sizeBytes: 0,
  mtimeNs: 1_700_000_000_000_000_000n,
  major: 0,
  minor: 0,
  xattrs: new Map(),
};

describe('entries of an archive', () => {
  it('are read as they were written, whatever ustar can not say', () => {
    const entries: TarEntry[] = [
      PLAIN,
      { ...PLAIN, kind: 'directory', name: `${'d'.repeat(120)}/`, mode: 0o1777 },
      { ...PLAIN, kind: 'symlink', name: 'link', linkName: `/${'t'.repeat(200)}` },
      { ...PLAIN, kind: 'link', name: 'hard', linkName: 'a' },
      { ...PLAIN, kind: 'character', name: 'null', major: 1, minor: 3 },
      { ...PLAIN, kind: 'fifo', name: 'pipe', uid: 4_000_000_000, gid: 3_000_000 },
      { ...PLAIN, name: 'before', mtimeNs: -1_500_000_001n },
      { ...PLAIN, name: 'fine', mtimeNs: 1_700_000_000_123_456_789n },
      { ...PLAIN, name: 'caps', xattrs: new Map([['security.capability', Buffer.of(1, 0, 10)]]) },
      { ...PLAIN, name: Buffer.from([0xff, 0xfe]).toString('latin1') },
    ];
    assert.deepEqual(readAll(entries.map((entry) => encodeHeader(entry))), entries);
  });

  it('keep their data apart', () => {
    const data = Buffer.from('hello');
    const header = encodeHeader({ ...PLAIN, sizeBytes: data.length });
    const read = readAll([header, data, padding(data.length), encodeHeader(PLAIN)]);
    assert.deepEqual(
      read.map(({ sizeBytes }) => sizeBytes),
      [5, 0],
    );
  });
});

function readAll(parts: readonly Buffer[]): TarEntry[] {
  const entries: TarEntry[] = [];
  const reader = new TarReader({
    entry: (entry) => entries.push(entry),
    data: () => undefined,
    end: () => undefined,
  });
  reader.write(Buffer.concat([...parts, endOfArchive()]));
  reader.finish();
  return entries;
}
