// The fields of tar headers and of pax records, each checked; and what is said of a broken archive.

import { Failure } from '@cribus/contracts/failure.ts';

export const BLOCK_BYTES = 512;

/** Records of extended headers by their key. */
export type Pax = Map<string, Buffer>;

/** A broken or hostile archive. */
export function badTar(why: string): Failure {
  return new Failure('data_loss', `the layer's tar archive is broken: ${why}`);
}

/** A name of bytes for a message: as UTF-8, and not longer than a person reads. */
export function readable(name: string): string {
  return Buffer.from(name, 'latin1').toString('utf8').slice(0, 200);
}

export function verifyChecksum(header: Buffer): void {
  let sum = 8 * 0x20;
  for (let at = 0; at < BLOCK_BYTES; at += 1) {
    if (at < 148 || at >= 156) sum += header[at] ?? 0;
  }
  const stored = Number.parseInt(text(header, 148, 8).trim() || 'x', 8);
  if (sum !== stored) throw badTar('a header has a wrong checksum');
}

export function text(header: Buffer, offset: number, length: number): string {
  const end = header.indexOf(0, offset);
  return header.toString(
    'latin1',
    offset,
    end < 0 || end > offset + length ? offset + length : end,
  );
}

export function cString(data: Buffer): string {
  const end = data.indexOf(0);
  return data.toString('latin1', 0, end < 0 ? data.length : end);
}

/** Ustar splits a long name into a prefix and a name; GNU keeps times in the prefix's place. */
export function nameOf(header: Buffer): string {
  const name = text(header, 0, 100);
  const isUstar = header.toString('latin1', 257, 263) === 'ustar\0';
  const prefix = isUstar ? text(header, 345, 155) : '';
  return prefix === '' ? name : `${prefix}/${name}`;
}

/** Octal digits, or with the top bit set a big-endian two's complement number (GNU). */
export function readNumber(header: Buffer, offset: number, length: number, signed = false): number {
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

export function paxNumber(value: Buffer | undefined): number | undefined {
  if (value === undefined) return undefined;
  const digits = value.toString('latin1');
  const number = Number(digits);
  if (!/^[0-9]+$/.test(digits) || !Number.isSafeInteger(number)) {
    throw badTar(`an extended header holds the number ${JSON.stringify(digits.slice(0, 40))}`);
  }
  return number;
}

export function idOf(id: number, shown: string): number {
  // (uid_t)-1 means "leave it" to chown(2), so it is no owner.
  if (id < 0 || id >= 0xffffffff) throw badTar(`${shown} has the owner ${id}`);
  return id;
}

/** `1700000000.123456789` in nanoseconds; digits beyond the ninth are dropped. */
export function decimalNs(decimal: string, shown: string): bigint {
  const match = /^(-?)([0-9]{1,12})(?:\.([0-9]*))?$/.exec(decimal);
  if (match === null) throw badTar(`${shown} has the time ${JSON.stringify(decimal.slice(0, 40))}`);
  const fraction = (match[3] ?? '').slice(0, 9).padEnd(9, '0');
  const ns = BigInt(match[2] ?? '0') * 1_000_000_000n + BigInt(fraction);
  return match[1] === '-' ? -ns : ns;
}

/** Records of `length key=value\n`, the length counting itself (POSIX pax). */
export function parsePax(data: Buffer): Pax {
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
    if (key === 'GNU.sparse.offset' || key === 'GNU.sparse.numbytes') {
      // The form 0.0 repeats these two; 0.1 says the same as a list.
      const before = records.get('GNU.sparse.map');
      const all = before === undefined ? value : Buffer.concat([before, Buffer.from(','), value]);
      records.set('GNU.sparse.map', all);
    } else {
      records.set(key, value);
    }
    at = end;
  }
  return records;
}

const XATTR_PREFIX = 'SCHILY.xattr.';

export function xattrsOf(...headers: readonly Pax[]): ReadonlyMap<string, Buffer> {
  const xattrs = new Map<string, Buffer>();
  for (const header of headers) {
    for (const [key, value] of header) {
      if (key.startsWith(XATTR_PREFIX)) xattrs.set(key.slice(XATTR_PREFIX.length), value);
    }
  }
  return xattrs;
}
