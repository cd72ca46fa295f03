// Reads a tar stream as it arrives: ustar, pax (also global headers), GNU long names, base-256
// numbers and sparse files. It trusts nothing: every header is checked, every size has a maximum. No files here.

import { OLD_REAL_SIZE_AT } from './sparse.ts';
import { SparseReader } from './sparse-reader.ts';
import {
  BLOCK_BYTES,
  badTar,
  cString,
  decimalNs,
  idOf,
  nameOf,
  type Pax,
  parsePax,
  paxNumber,
  readable,
  readNumber,
  text,
  verifyChecksum,
  xattrsOf,
} from './tar-header.ts';

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
  /** Its data is told in pieces by `seek`, and what lies between them is holes. */
  readonly sparse?: true;
}

/** What the reader tells while it reads. Chunks are valid only during the call. */
export interface TarSink {
  entry(entry: TarEntry): void;
  data(chunk: Uint8Array): void;
  /** The next data goes there in the file. A sink without it is given no sparse files. */
  seek?(offset: number): void;
  /** All bytes of the entry were told. */
  end(): void;
}

/** Of one extended header or long name: xattrs are at most 64 KiB each (limits.h). */
const EXTENDED_HEADER_BYTES_MAX = 1024 * 1024;
const ENTRIES_MAX = 5_000_000;
/** Far above any layer that is pulled, far below what makes a number inexact. */
const ENTRY_BYTES_MAX = 2 ** 40;

const KINDS: Readonly<Record<string, TarEntryKind>> = {
  '\0': 'file',
  '0': 'file',
  '7': 'file',
  // A sparse file in GNU's old form.
  S: 'file',
  '1': 'link',
  '2': 'symlink',
  '3': 'character',
  '4': 'block',
  '5': 'directory',
  '6': 'fifo',
};

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
  #sparse: SparseReader | undefined;
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
    const within = this.#dataBytes > 0 || this.#headerBytes > 0 || this.#sparse !== undefined;
    if (within || this.#collecting !== undefined) {
      throw badTar('it ends within an entry');
    }
    if (this.#pax.size > 0 || this.#longName !== undefined || this.#longLink !== undefined) {
      throw badTar('it ends after an extended header');
    }
  }

  #takeData(piece: Uint8Array): void {
    if (this.#collecting === undefined) {
      if (this.#sparse === undefined) this.#sink.data(piece);
      else this.#sparse.takeData(piece);
      return;
    }
    this.#collecting.data.set(piece, this.#collecting.used);
    this.#collecting.used += piece.length;
  }

  #endOfData(): void {
    const collected = this.#collecting;
    if (collected === undefined) {
      this.#sparse?.end();
      this.#sparse = undefined;
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
    if (this.#sparse?.isExtended === true) {
      this.#sparse.takeOldRegions(header, 'extension');
      this.#expectSparse(this.#sparse);
      return;
    }
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
    const pax = this.#pax;
    this.#pax = new Map();
    this.#longName = undefined;
    this.#longLink = undefined;
    this.#inEntry = true;
    if (entry.sparse) {
      this.#beginSparse(entry, { header, type, pax });
      return;
    }
    this.#expect(entry.sizeBytes);
    this.#sink.entry(entry);
    if (entry.sizeBytes === 0) this.#endOfData();
  }

  #beginSparse(
    entry: TarEntry,
    from: { readonly header: Buffer; readonly type: string; readonly pax: Pax },
  ): void {
    const storedBytes = paxNumber(from.pax.get('size')) ?? readNumber(from.header, 124, 12);
    if (storedBytes > ENTRY_BYTES_MAX) throw badTar(`a header claims ${storedBytes} bytes`);
    const sparse = new SparseReader(this.#sink, { entry, storedBytes });
    this.#sparse = sparse;
    if (from.type === 'S') sparse.takeOldRegions(from.header, 'header');
    else sparse.takeMap(from.pax.get('GNU.sparse.map'));
    this.#expectSparse(sparse);
  }

  /** Its data follows, once no more blocks of regions do. */
  #expectSparse(sparse: SparseReader): void {
    if (sparse.isExtended) return;
    this.#expect(sparse.storedBytes);
    if (sparse.storedBytes === 0) this.#endOfData();
  }

  #expect(sizeBytes: number): void {
    this.#dataBytes = sizeBytes;
    this.#paddingBytes = (BLOCK_BYTES - (sizeBytes % BLOCK_BYTES)) % BLOCK_BYTES;
  }

  #composeEntry(header: Buffer, type: string): TarEntry {
    const pax = (key: string) => this.#pax.get(key) ?? this.#global.get(key);
    const ustarName = nameOf(header);
    const sparseName = pax('GNU.sparse.name')?.toString('latin1');
    const name = sparseName ?? pax('path')?.toString('latin1') ?? this.#longName ?? ustarName;
    const shown = JSON.stringify(readable(name));
    const sparsePax = pax('GNU.sparse.major') !== undefined || pax('GNU.sparse.map') !== undefined;
    const sparse = type === 'S' || (sparsePax && KINDS[type] === 'file');
    // Old archives mark a directory by a slash at the end of a regular file's name.
    const kind = name.endsWith('/') && (type === '0' || type === '\0') ? 'directory' : KINDS[type];
    if (kind === undefined) throw badTar(`${shown} has the unknown type ${JSON.stringify(type)}`);
    const realSize = pax('GNU.sparse.realsize') ?? pax('GNU.sparse.size');
    const sizeBytes =
      (sparse && type !== 'S' ? paxNumber(realSize) : undefined) ??
      (type === 'S' ? readNumber(header, OLD_REAL_SIZE_AT, 12) : undefined) ??
      paxNumber(pax('size')) ??
      readNumber(header, 124, 12);
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
      ...(sparse ? { sparse } : {}),
    };
  }
}
