// Reads a tar stream as it arrives: ustar, pax (also global headers), GNU long names and base-256
// numbers. It trusts nothing: every header is checked, every size has a maximum. No files here.

import { Failure } from '@cribus/contracts/failure.ts';

export type TarEntryKind =
  | 'file'
  | 'link'
  | 'symlink'
  | 'character'
  | 'block'
  | 'directory'
  | 'fifo';

export interface TarEntry {
  readonly kind: TarEntryKind;
  /** As written in the archive, a character for each byte (latin1), not yet checked. */
  readonly name: string;
  readonly linkName: string;
  /** Permission bits with setuid, setgid and sticky. */
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
  readonly sizeBytes: number;
  readonly mtimeNs: bigint;
  readonly major: number;
  readonly minor: number;
  readonly xattrs: ReadonlyMap<string, Buffer>;
}

/** What the reader tells while it reads. Chunks are valid only during the call. */
export interface TarSink {
  entry(entry: TarEntry): void;
  data(chunk: Uint8Array): void;
  /** All bytes of the entry were told. */
  end(): void;
}

const BLOCK_BYTES = 512;
/** Of one extended header or long name: xattrs are at most 64 KiB each (limits.h). */
const EXTENDED_HEADER_BYTES_MAX = 1024 * 1024;
const ENTRIES_MAX = 5_000_000;
/** Far above any layer that is pulled, far below what makes a number inexact. */
const ENTRY_BYTES_MAX = 2 ** 40;

const KINDS: Readonly<Record<string, TarEntryKind>> = {
  '\0': 'file',
  '0': 'file',
  '7': 'file',
  '1': 'link',
  '2': 'symlink',
  '3': 'character',
  '4': 'block',
  '5': 'directory',
  '6': 'fifo',
};

type Pax = Map<string, Buffer>;

/** A broken or hostile archive. */
export function badTar(why: string): Failure {
  return new Failure('data_loss', `the layer's tar archive is broken: ${why}`);
}

/** A name of bytes for a message: as UTF-8, and not longer than a person reads. */
export function readable(name: string): string {
  return Buffer.from(name, 'latin1').toString('utf8').slice(0, 200);
}

/** Cuts a stream of bytes into entries. Raises data_loss for what no tar program writes. */
export class TarReader {
  readonly #sink: TarSink;
  readonly #header = Buffer.alloc(BLOCK_BYTES);
  #headerBytes = 0;
  /** Of the current entry: data still to come, then padding. */
  #dataBytes = 0;
  #paddingBytes = 0;
  #collecting: { readonly type: string; readonly data: Buffer; used: number } | undefined;
  #inEntry = false;
  #global: Pax = new Map();
  #pax: Pax = new Map();
  #longName: string | undefined;
  #longLink: string | undefined;
  #zeroBlocks = 0;
  #entries = 0;

  constructor(sink: TarSink) {
    this.#sink = sink;
  }

  get entries(): number {
    return this.#entries;
  }

  /** Takes the next bytes of the archive. */
  write(chunk: Uint8Array): void {
    let at = 0;
    while (at < chunk.length) {
      if (this.#dataBytes > 0) {
        const piece = chunk.subarray(at, at + this.#dataBytes);
        at += piece.length;
        this.#dataBytes -= piece.length;
        this.#takeData(piece);
        if (this.#dataBytes === 0) this.#endOfData();
      } else if (this.#paddingBytes > 0) {
        const skipped = Math.min(this.#paddingBytes, chunk.length - at);
        at += skipped;
        this.#paddingBytes -= skipped;
      } else if (this.#zeroBlocks >= 2) {
        return; // What follows the end marker is padding to the record size.
      } else {
        const wanted = Math.min(BLOCK_BYTES - this.#headerBytes, chunk.length - at);
        this.#header.set(chunk.subarray(at, at + wanted), this.#headerBytes);
        at += wanted;
        this.#headerBytes += wanted;
        if (this.#headerBytes === BLOCK_BYTES) {
          this.#headerBytes = 0;
          this.#takeHeader(this.#header);
        }
      }
    }
  }

  /** The stream is over. Raises data_loss when it stopped within an entry. */
  finish(): void {
    if (this.#dataBytes > 0 || this.#headerBytes > 0 || this.#collecting !== undefined) {
      throw badTar('it ends within an entry');
    }
    if (this.#pax.size > 0 || this.#longName !== undefined || this.#longLink !== undefined) {
      throw badTar('it ends after an extended header');
    }
  }

  #takeData(piece: Uint8Array): void {
    if (this.#collecting === undefined) {
      this.#sink.data(piece);
      return;
    }
    this.#collecting.data.set(piece, this.#collecting.used);
    this.#collecting.used += piece.length;
  }

  #endOfData(): void {
    const collected = this.#collecting;
    if (collected === undefined) {
      if (this.#inEntry) this.#sink.end();
      this.#inEntry = false;
      return;
    }
    this.#collecting = undefined;
    switch (collected.type) {
      case 'x':
        for (const [key, value] of parsePax(collected.data)) this.#pax.set(key, value);
        break;
      case 'g':
        for (const [key, value] of parsePax(collected.data)) this.#global.set(key, value);
        break;
      case 'L':
        this.#longName = cString(collected.data);
        break;
      default:
        this.#longLink = cString(collected.data);
    }
  }

  #takeHeader(header: Buffer): void {
    if (header.every((byte) => byte === 0)) {
      this.#zeroBlocks += 1;
      return;
    }
    this.#zeroBlocks = 0;
    verifyChecksum(header);
    const type = String.fromCharCode(header[156] ?? 0);
    if (type === 'x' || type === 'g' || type === 'L' || type === 'K') {
      const size = readNumber(header, 124, 12);
      if (size > EXTENDED_HEADER_BYTES_MAX) throw badTar(`an extended header of ${size} bytes`);
      this.#collecting = { type, data: Buffer.alloc(size), used: 0 };
      this.#expect(size);
      if (size === 0) this.#endOfData();
      return;
    }
    this.#entries += 1;
    if (this.#entries > ENTRIES_MAX) throw badTar(`more than ${ENTRIES_MAX} entries`);
    const entry = this.#composeEntry(header, type);
    this.#pax = new Map();
    this.#longName = undefined;
    this.#longLink = undefined;
    this.#inEntry = true;
    this.#expect(entry.sizeBytes);
    this.#sink.entry(entry);
    if (entry.sizeBytes === 0) this.#endOfData();
  }

  #expect(sizeBytes: number): void {
    this.#dataBytes = sizeBytes;
    this.#paddingBytes = (BLOCK_BYTES - (sizeBytes % BLOCK_BYTES)) % BLOCK_BYTES;
  }

  #composeEntry(header: Buffer, type: string): TarEntry {
    const pax = (key: string) => this.#pax.get(key) ?? this.#global.get(key);
    const ustarName = nameOf(header);
    const name = pax('path')?.toString('latin1') ?? this.#longName ?? ustarName;
    const shown = JSON.stringify(readable(name));
    if (pax('GNU.sparse.major') !== undefined || pax('GNU.sparse.map') !== undefined) {
      throw badTar(`${shown} is a sparse file in GNU's own form, which is not supported`);
    }
    // Old archives mark a directory by a slash at the end of a regular file's name.
    const kind = name.endsWith('/') && (type === '0' || type === '\0') ? 'directory' : KINDS[type];
    if (kind === undefined) throw badTar(`${shown} has the unknown type ${JSON.stringify(type)}`);
    const sizeBytes = paxNumber(pax('size')) ?? readNumber(header, 124, 12);
    if (sizeBytes > ENTRY_BYTES_MAX) throw badTar(`${shown} claims ${sizeBytes} bytes`);
    const mtime = pax('mtime')?.toString('latin1');
    return {
      kind,
      name,
      linkName: pax('linkpath')?.toString('latin1') ?? this.#longLink ?? text(header, 157, 100),
      mode: readNumber(header, 100, 8) & 0o7777,
      uid: idOf(paxNumber(pax('uid')) ?? readNumber(header, 108, 8), shown),
      gid: idOf(paxNumber(pax('gid')) ?? readNumber(header, 116, 8), shown),
      // Only a regular file has data, whatever a header claims; GNU tar writes 0 for the others.
      sizeBytes: kind === 'file' || kind === 'directory' ? sizeBytes : 0,
      mtimeNs:
        mtime === undefined
          ? BigInt(readNumber(header, 136, 12, true)) * 1_000_000_000n
          : decimalNs(mtime, shown),
      major: kind === 'character' || kind === 'block' ? readNumber(header, 329, 8) : 0,
      minor: kind === 'character' || kind === 'block' ? readNumber(header, 337, 8) : 0,
      xattrs: xattrsOf(this.#global, this.#pax),
    };
  }
}

function verifyChecksum(header: Buffer): void {
  let sum = 8 * 0x20;
  for (let at = 0; at < BLOCK_BYTES; at += 1) {
    if (at < 148 || at >= 156) sum += header[at] ?? 0;
  }
  const stored = Number.parseInt(text(header, 148, 8).trim() || 'x', 8);
  if (sum !== stored) throw badTar('a header has a wrong checksum');
}

function text(header: Buffer, offset: number, length: number): string {
  const end = header.indexOf(0, offset);
  return header.toString(
    'latin1',
    offset,
    end < 0 || end > offset + length ? offset + length : end,
  );
}

function cString(data: Buffer): string {
  const end = data.indexOf(0);
  return data.toString('latin1', 0, end < 0 ? data.length : end);
}

/** Ustar splits a long name into a prefix and a name; GNU keeps times in the prefix's place. */
function nameOf(header: Buffer): string {
  const name = text(header, 0, 100);
  const isUstar = header.toString('latin1', 257, 263) === 'ustar\0';
  const prefix = isUstar ? text(header, 345, 155) : '';
  return prefix === '' ? name : `${prefix}/${name}`;
}

/** Octal digits, or with the top bit set a big-endian two's complement number (GNU). */
function readNumber(header: Buffer, offset: number, length: number, signed = false): number {
  const first = header[offset] ?? 0;
  if (first >= 0x80) {
    let value = first & 0x40 ? -1n : 0n;
    value = (value << 6n) | BigInt(first & 0x3f);
    for (let at = 1; at < length; at += 1) value = (value << 8n) | BigInt(header[offset + at] ?? 0);
    const number = Number(value);
    if (!Number.isSafeInteger(number) || (number < 0 && !signed)) {
      throw badTar(`a header holds the number ${value}`);
    }
    return number;
  }
  const digits = text(header, offset, length).trim();
  if (digits === '') return 0;
  if (!/^[0-7]+$/.test(digits)) throw badTar('a header holds a number that is not octal');
  return Number.parseInt(digits, 8);
}

function paxNumber(value: Buffer | undefined): number | undefined {
  if (value === undefined) return undefined;
  const digits = value.toString('latin1');
  const number = Number(digits);
  if (!/^[0-9]+$/.test(digits) || !Number.isSafeInteger(number)) {
    throw badTar(`an extended header holds the number ${JSON.stringify(digits.slice(0, 40))}`);
  }
  return number;
}

function idOf(id: number, shown: string): number {
  // (uid_t)-1 means "leave it" to chown(2), so it is no owner.
  if (id < 0 || id >= 0xffffffff) throw badTar(`${shown} has the owner ${id}`);
  return id;
}

/** `1700000000.123456789` in nanoseconds; digits beyond the ninth are dropped. */
function decimalNs(decimal: string, shown: string): bigint {
  const match = /^(-?)([0-9]{1,12})(?:\.([0-9]*))?$/.exec(decimal);
  if (match === null) throw badTar(`${shown} has the time ${JSON.stringify(decimal.slice(0, 40))}`);
  const fraction = (match[3] ?? '').slice(0, 9).padEnd(9, '0');
  const ns = BigInt(match[2] ?? '0') * 1_000_000_000n + BigInt(fraction);
  return match[1] === '-' ? -ns : ns;
}

/** Records of `length key=value\n`, the length counting itself (POSIX pax). */
function parsePax(data: Buffer): Pax {
  const records: Pax = new Map();
  let at = 0;
  while (at < data.length && data[at] !== 0) {
    const space = data.indexOf(0x20, at);
    const lengthText = space < 0 ? '' : data.toString('latin1', at, space);
    const end = at + Number(lengthText);
    const equals = data.indexOf(0x3d, space);
    const whole =
      /^[0-9]{1,9}$/.test(lengthText) &&
      end <= data.length &&
      equals > space &&
      equals < end &&
      data[end - 1] === 0x0a;
    if (!whole) throw badTar('an extended header has a broken record');
    const value = data.subarray(equals + 1, end - 1);
    const key = data.toString('utf8', space + 1, equals);
    if ((key === 'path' || key === 'linkpath') && value.includes(0)) {
      throw badTar('a name holds a NUL');
    }
    records.set(key, value);
    at = end;
  }
  return records;
}

const XATTR_PREFIX = 'SCHILY.xattr.';

function xattrsOf(...headers: readonly Pax[]): ReadonlyMap<string, Buffer> {
  const xattrs = new Map<string, Buffer>();
  for (const header of headers) {
    for (const [key, value] of header) {
      if (key.startsWith(XATTR_PREFIX)) xattrs.set(key.slice(XATTR_PREFIX.length), value);
    }
  }
  return xattrs;
}
