// Tar archives byte by byte, so that a test can have every kind of entry with every attribute, and
// also what no tar program would write (POSIX pax(1), and GNU tar's base-256 numbers).

export interface ArchiveEntry {
  /** Bytes where the name is no UTF-8. */
  readonly name: string | Buffer;
  /** The typeflag; default a regular file, or a directory for a name that ends in a slash. */
  readonly type?: string;
  readonly data?: Uint8Array | string;
  readonly linkName?: string;
  readonly mode?: number;
  readonly uid?: number;
  readonly gid?: number;
  /** Nanoseconds since 1970; what isn't whole seconds goes into a pax header. */
  readonly mtimeNs?: bigint;
  readonly major?: number;
  readonly minor?: number;
  readonly xattrs?: Readonly<Record<string, string | Buffer>>;
  /** More records of the pax header in front. */
  readonly pax?: Readonly<Record<string, string | Buffer>>;
  /** The size that the header claims, where it lies. */
  readonly claimedSize?: number;
  readonly badChecksum?: boolean;
}

const BLOCK_BYTES = 512;
const NAME_BYTES_MAX = 100;
const NS_PER_S = 1_000_000_000n;
/** 2023-11-14, whole seconds. */
const MTIME_NS = 1_700_000_000n * NS_PER_S;

/** The archive with its end marker. */
export function archive(entries: readonly ArchiveEntry[]): Buffer {
  return Buffer.concat([...entries.flatMap(blocksOf), Buffer.alloc(2 * BLOCK_BYTES)]);
}

function blocksOf(entry: ArchiveEntry): Buffer[] {
  const records = Object.entries(paxOf(entry)).map(([key, value]) => paxRecord(key, value));
  const extended =
    records.length === 0
      ? []
      : member({ name: 'PaxHeaders.0/x', type: 'x', data: Buffer.concat(records) });
  return [...extended, ...member(entry)];
}

function paxOf(entry: ArchiveEntry): Record<string, string | Buffer> {
  const mtimeNs = entry.mtimeNs ?? MTIME_NS;
  const fraction = String(mtimeNs % NS_PER_S).padStart(9, '0');
  return {
    ...(Buffer.byteLength(entry.name) > NAME_BYTES_MAX ? { path: entry.name } : {}),
    ...(Buffer.byteLength(entry.linkName ?? '') > NAME_BYTES_MAX
      ? { linkpath: entry.linkName ?? '' }
      : {}),
    ...(mtimeNs % NS_PER_S === 0n ? {} : { mtime: `${mtimeNs / NS_PER_S}.${fraction}` }),
    ...Object.fromEntries(
      Object.entries(entry.xattrs ?? {}).map(([key, value]) => [`SCHILY.xattr.${key}`, value]),
    ),
    ...entry.pax,
  };
}

/** `length key=value\n`, the length counting itself. */
function paxRecord(key: string, value: string | Buffer): Buffer {
  const rest = Buffer.concat([Buffer.from(` ${key}=`), Buffer.from(value), Buffer.from('\n')]);
  let length = rest.length + 1;
  while (String(length).length + rest.length !== length) length += 1;
  return Buffer.concat([Buffer.from(String(length)), rest]);
}

function member(entry: ArchiveEntry): Buffer[] {
  const name = Buffer.from(entry.name);
  const data = Buffer.from(entry.data ?? '');
  const isDirectory = name.at(-1) === '/'.charCodeAt(0);
  const type = entry.type ?? (isDirectory ? '5' : '0');
  const header = Buffer.alloc(BLOCK_BYTES);
  name.copy(header, 0, 0, NAME_BYTES_MAX);
  writeNumber(header, { at: 100, width: 8, value: entry.mode ?? (type === '5' ? 0o755 : 0o644) });
  writeNumber(header, { at: 108, width: 8, value: entry.uid ?? 0 });
  writeNumber(header, { at: 116, width: 8, value: entry.gid ?? 0 });
  writeNumber(header, { at: 124, width: 12, value: entry.claimedSize ?? data.length });
  const seconds = Number((entry.mtimeNs ?? MTIME_NS) / NS_PER_S);
  writeNumber(header, { at: 136, width: 12, value: seconds });
  header.write(type, 156, 1, 'latin1');
  header.write(entry.linkName ?? '', 157, NAME_BYTES_MAX, 'utf8');
  header.write('ustar\x0000', 257, 8, 'latin1');
  writeNumber(header, { at: 329, width: 8, value: entry.major ?? 0 });
  writeNumber(header, { at: 337, width: 8, value: entry.minor ?? 0 });
  header.fill(0x20, 148, 156);
  const sum = header.reduce((total, byte) => total + byte, 0) + (entry.badChecksum ? 1 : 0);
  header.write(`${sum.toString(8).padStart(6, '0')}\0 `, 148, 8, 'latin1');
  return [header, data, Buffer.alloc((BLOCK_BYTES - (data.length % BLOCK_BYTES)) % BLOCK_BYTES)];
}

function writeNumber(
  header: Buffer,
  field: { readonly at: number; readonly width: number; readonly value: number },
): void {
  const { at, width, value } = field;
  if (value < 8 ** (width - 1)) {
    header.write(`${value.toString(8).padStart(width - 1, '0')}\0`, at, width, 'latin1');
    return;
  }
  header.writeBigUInt64BE(BigInt(value), at + width - 8);
  header[at] = (header[at] ?? 0) | 0x80;
}
