// The compressed header blocks of SPDY/3 (draft-mbelshe-httpbis-spdy-00, section 2.6.10): one zlib
// stream for each direction of a connection, primed with a dictionary and flushed after each block.

import { constants, inflateRawSync } from 'node:zlib';
import { SpdyError } from './frames.ts';

/** What one block may inflate to, and how many headers it may hold: a bomb is stopped here. */
const BLOCK_BYTES_MAX = 64 * 1024;
const HEADERS_MAX = 100;
/** How far back a deflate stream may refer (RFC 1951). */
const WINDOW_BYTES = 32 * 1024;

/** The words of the dictionary, each behind its length, and the text that ends it. */
const DICTIONARY_WORDS = [
  'options head post put delete trace accept accept-charset accept-encoding accept-language',
  'accept-ranges age allow authorization cache-control connection content-base content-encoding',
  'content-language content-length content-location content-md5 content-range content-type date',
  'etag expect expires from host if-match if-modified-since if-none-match if-range',
  'if-unmodified-since last-modified location max-forwards pragma proxy-authenticate',
  'proxy-authorization range referer retry-after server te trailer transfer-encoding upgrade',
  'user-agent vary via warning www-authenticate method get status',
].flatMap((line) => line.split(' '));
const DICTIONARY_LAST_WORDS = [
  ...['200 OK', 'version', 'HTTP/1.1', 'url', 'public', 'set-cookie', 'keep-alive', 'origin'],
];
const DICTIONARY_TAIL = [
  '1001012012022052063003023033043053063074024054064074084094104114124134144154164175025045052',
  '03 Non-Authoritative Information204 No Content301 Moved Permanently400 Bad Request401 Unauth',
  'orized403 Forbidden404 Not Found500 Internal Server Error501 Not Implemented503 Service Unav',
  'ailableJan Feb Mar Apr May Jun Jul Aug Sept Oct Nov Dec 00:00:00 Mon, Tue, Wed, Thu, Fri, Sa',
  't, Sun, GMTchunked,text/html,image/png,image/jpg,image/gif,application/xml,application/xhtml',
  '+xml,text/plain,text/javascript,publicprivatemax-age=gzip,deflate,sdchcharset=utf-8charset=i',
  'so-8859-1,utf-,*,enq=0.',
].join('');
export const DICTIONARY = Buffer.concat([
  ...[...DICTIONARY_WORDS, ...DICTIONARY_LAST_WORDS].map(lengthPrefixed),
  Buffer.from(DICTIONARY_TAIL),
]);
/** A zlib header (RFC 1950) without compression that names the dictionary by its Adler-32. */
const STREAM_HEADER = Buffer.from([0x78, 0x20, 0xe3, 0xc6, 0xa7, 0xc2]);
/** An empty stored block: makes an inflater hand out what came before it (RFC 1951, 3.2.4). */
const FLUSH = Buffer.from([0x00, 0x00, 0x00, 0xff, 0xff]);

export type Headers = ReadonlyMap<string, string>;

/**
 * Reads the blocks of one connection, in their order; names come in lower case. Raises SpdyError for
 * what doesn't inflate, is too large, or isn't a block.
 */
export function createHeaderReader(): (block: Buffer) => Headers {
  let window = DICTIONARY;
  let first = true;
  return (block) => {
    let deflated = block;
    if (first) {
      checkStreamHeader(block);
      deflated = block.subarray(STREAM_HEADER.length);
      first = false;
    }
    const inflated = inflate(deflated, window);
    window = Buffer.concat([window, inflated]).subarray(-WINDOW_BYTES);
    return readHeaders(inflated);
  };
}

/** Writes the blocks of one connection, in their order, as they are: ours are all but empty. */
export function createHeaderWriter(): (headers: Headers) => Buffer {
  let first = true;
  return (headers) => {
    const block = Buffer.concat([
      lengthOf(headers.size),
      ...[...headers].flatMap(([name, value]) => [lengthPrefixed(name), lengthPrefixed(value)]),
    ]);
    const stored = Buffer.alloc(5);
    stored.writeUInt16LE(block.length, 1);
    stored.writeUInt16LE(~block.length & 0xffff, 3);
    const start = first ? STREAM_HEADER : Buffer.alloc(0);
    first = false;
    return Buffer.concat([start, stored, block, FLUSH]);
  };
}

function checkStreamHeader(block: Buffer): void {
  const [cmf = 0, flags = 0] = block;
  const deflates = (cmf & 0x0f) === 8 && ((cmf << 8) | flags) % 31 === 0;
  const names = (flags & 0x20) !== 0 && block.subarray(2, 6).equals(STREAM_HEADER.subarray(2));
  if (!deflates || !names) throw new SpdyError("header blocks without SPDY/3's dictionary");
}

/** A flushed block ends on a byte, so it can be inflated by itself over the window before it. */
function inflate(deflated: Buffer, window: Buffer): Buffer {
  try {
    return inflateRawSync(deflated, {
      dictionary: window,
      finishFlush: constants.Z_SYNC_FLUSH,
      maxOutputLength: BLOCK_BYTES_MAX,
    });
  } catch (cause) {
    throw new SpdyError('a header block that does not inflate, or to too much', { cause });
  }
}

function readHeaders(block: Buffer): Headers {
  let offset = 0;
  const number = (): number => {
    if (offset + 4 > block.length) throw new SpdyError('a header block that ends too early');
    offset += 4;
    return block.readUInt32BE(offset - 4);
  };
  const text = (): string => {
    const length = number();
    if (offset + length > block.length) throw new SpdyError('a header beyond its block');
    offset += length;
    return block.toString('utf8', offset - length, offset);
  };
  const count = number();
  if (count > HEADERS_MAX) throw new SpdyError(`a block of ${count} headers`);
  const headers = new Map<string, string>();
  for (let index = 0; index < count; index += 1) {
    const name = text().toLowerCase();
    headers.set(name, text());
  }
  return headers;
}

function lengthOf(value: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32BE(value);
  return bytes;
}

function lengthPrefixed(text: string): Buffer {
  const bytes = Buffer.from(text);
  return Buffer.concat([lengthOf(bytes.length), bytes]);
}
