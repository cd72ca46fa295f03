// Writes tar entries one by one as POSIX pax(1) has them: what ustar can't say exactly (long names,
// sizes over 8 GiB, attributes, times finer than a second) goes into an extended header in front.

import type { TarEntry, TarEntryKind } from './tar-reader.ts';

const BLOCK_BYTES = 512;
const NAME_BYTES_MAX = 100;
const NS_PER_S = 1_000_000_000n;
/** What seven and eleven octal digits hold. */
const ID_MAX = 0o7777777;
const NUMBER_MAX = 0o77777777777;

const TYPE_FLAGS: Readonly<Record<TarEntryKind, string>> = {
  file: '0',
  link: '1',
  symlink: '2',
  character: '3',
  block: '4',
  directory: '5',
  fifo: '6',
};

/** What is in front of an entry's data. Names hold a character for each byte (latin1). */
export function encodeHeader(entry: TarEntry): Buffer {
  const records = paxRecords(entry);
  const header = ustarHeader(entry);
  if (records.length === 0) return header;
  const data = Buffer.concat(records);
  const extended = ustarHeader({
    ...entry,
    name: 'PaxHeaders/entry',
    linkName: '',
    sizeBytes: data.length,
    uid: 0,
    gid: 0,
    typeFlag: 'x',
  });
  return Buffer.concat([extended, data, padding(data.length), header]);
}

/** What follows an entry's data. */
export function padding(sizeBytes: number): Buffer {
  return Buffer.alloc((BLOCK_BYTES - (sizeBytes % BLOCK_BYTES)) % BLOCK_BYTES);
}

/** What ends an archive. */
export function endOfArchive(): Buffer {
  return Buffer.alloc(2 * BLOCK_BYTES);
}

function paxRecords(entry: TarEntry): Buffer[] {
  const records: Buffer[] = [];
  const add = (key: string, value: Buffer) => records.push(paxRecord(key, value));
  const bytes = (text: string) => Buffer.from(text, 'latin1');
  if (nameOf(entry).length > NAME_BYTES_MAX) add('path', bytes(nameOf(entry)));
  if (entry.linkName.length > NAME_BYTES_MAX) add('linkpath', bytes(entry.linkName));
  if (entry.sizeBytes > NUMBER_MAX) add('size', bytes(String(entry.sizeBytes)));
  if (entry.uid > ID_MAX) add('uid', bytes(String(entry.uid)));
  if (entry.gid > ID_MAX) add('gid', bytes(String(entry.gid)));
  if (entry.mtimeNs % NS_PER_S !== 0n || entry.mtimeNs < 0n) {
    add('mtime', bytes(decimal(entry.mtimeNs)));
  }
  for (const [name, value] of entry.xattrs) add(`SCHILY.xattr.${name}`, value);
  return records;
}

function decimal(ns: bigint): string {
  const absolute = ns < 0n ? -ns : ns;
  const fraction = String(absolute % NS_PER_S).padStart(9, '0');
  return `${ns < 0n ? '-' : ''}${absolute / NS_PER_S}.${fraction}`;
}

/** `length key=value\n`, the length counting itself. */
function paxRecord(key: string, value: Buffer): Buffer {
  const rest = Buffer.concat([Buffer.from(` ${key}=`), value, Buffer.from('\n')]);
  let length = rest.length + 1;
  while (String(length).length + rest.length !== length) length += 1;
  return Buffer.concat([Buffer.from(String(length)), rest]);
}

function nameOf(entry: Pick<TarEntry, 'kind' | 'name'>): string {
  return entry.kind === 'directory' && !entry.name.endsWith('/') ? `${entry.name}/` : entry.name;
}

function ustarHeader(entry: TarEntry & { readonly typeFlag?: string }): Buffer {
  const header = Buffer.alloc(BLOCK_BYTES);
  const name = entry.typeFlag === undefined ? nameOf(entry) : entry.name;
  header.write(name.slice(0, NAME_BYTES_MAX), 0, 'latin1');
  const octal = (at: number, width: number, value: number) =>
    header.write(`${value.toString(8).padStart(width - 1, '0')}\0`, at, 'latin1');
  octal(100, 8, entry.mode);
  octal(108, 8, entry.uid > ID_MAX ? 0 : entry.uid);
  octal(116, 8, entry.gid > ID_MAX ? 0 : entry.gid);
  octal(124, 12, entry.sizeBytes > NUMBER_MAX ? 0 : entry.sizeBytes);
  octal(136, 12, entry.mtimeNs < 0n ? 0 : Number(entry.mtimeNs / NS_PER_S));
  header.write(entry.typeFlag ?? TYPE_FLAGS[entry.kind], 156, 'latin1');
  header.write(entry.linkName.slice(0, NAME_BYTES_MAX), 157, 'latin1');
  header.write('ustar\x0000', 257, 'latin1');
  octal(329, 8, entry.major);
  octal(337, 8, entry.minor);
  header.fill(0x20, 148, 156);
  const sum = header.reduce((total, byte) => total + byte, 0);
  header.write(`${sum.toString(8).padStart(6, '0')}\0 `, 148, 'latin1');
  return header;
}
