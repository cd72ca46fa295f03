// Tar archives for tests, byte by byte, so that also what no tar program writes can be built.

export interface TarPart {
  readonly name: string;
  /** The typeflag; default a regular file. */
  readonly type?: string;
  readonly data?: Uint8Array | string;
  readonly linkName?: string;
  readonly mode?: number;
  readonly uid?: number;
  readonly gid?: number;
  readonly mtime?: number;
  readonly major?: number;
  readonly minor?: number;
  /** Written as an extended header in front. */
  readonly pax?: Readonly<Record<string, string | Buffer>>;
  /** The size that the header claims, where it lies. */
  readonly claimedSize?: number;
  readonly badChecksum?: boolean;
}

const BLOCK = 512;

/** The archive, with its end marker. */
export function buildTar(parts: readonly TarPart[]): Buffer {
  return Buffer.concat([...parts.flatMap(partBlocks), Buffer.alloc(2 * BLOCK)]);
}

function partBlocks(part: TarPart): Buffer[] {
  const blocks: Buffer[] = [];
  if (part.pax !== undefined) {
    const records = Object.entries(part.pax).map(([key, value]) => paxRecord(key, value));
    blocks.push(...member({ name: 'PaxHeaders/x', type: 'x', data: Buffer.concat(records) }));
  }
  blocks.push(...member(part));
  return blocks;
}

/** `length key=value\n`. */
export function paxRecord(key: string, value: string | Buffer): Buffer {
  const body = Buffer.concat([Buffer.from(` ${key}=`), Buffer.from(value), Buffer.from('\n')]);
  let length = body.length + 1;
  while (String(length).length + body.length !== length) length += 1;
  return Buffer.concat([Buffer.from(String(length)), body]);
}

function member(part: TarPart): Buffer[] {
  const data = Buffer.from(part.data ?? '');
  const header = Buffer.alloc(BLOCK);
  header.write(part.name, 0, 100, 'utf8');
  octal(header, { at: 100, length: 8, value: part.mode ?? 0o644 });
  octal(header, { at: 108, length: 8, value: part.uid ?? 0 });
  octal(header, { at: 116, length: 8, value: part.gid ?? 0 });
  octal(header, { at: 124, length: 12, value: part.claimedSize ?? data.length });
  octal(header, { at: 136, length: 12, value: part.mtime ?? 1_600_000_000 });
  header.write(part.type ?? '0', 156, 1, 'latin1');
  header.write(part.linkName ?? '', 157, 100, 'utf8');
  header.write('ustar\x0000', 257, 8, 'latin1');
  octal(header, { at: 329, length: 8, value: part.major ?? 0 });
  octal(header, { at: 337, length: 8, value: part.minor ?? 0 });
  header.fill(0x20, 148, 156);
  const sum = header.reduce((total, byte) => total + byte, 0) + (part.badChecksum ? 1 : 0);
  header.write(`${sum.toString(8).padStart(6, '0')}\0 `, 148, 8, 'latin1');
  const padding = Buffer.alloc((BLOCK - (data.length % BLOCK)) % BLOCK);
  return [header, data, padding];
}

function octal(
  header: Buffer,
  field: { readonly at: number; readonly length: number; readonly value: number },
): void {
  const { at, length, value } = field;
  if (value >= 8 ** (length - 1)) {
    // GNU's base-256.
    header.writeBigUInt64BE(BigInt(value), at + length - 8);
    header[at] = (header[at] ?? 0) | 0x80;
    return;
  }
  header.write(`${value.toString(8).padStart(length - 1, '0')}\0`, at, length, 'latin1');
}
