// Sparse files as GNU tar stores them: in its old form (typeflag S) and in the pax forms 0.0, 0.1 and 1.0
// (GNU tar manual, "Storing Sparse Files"). Which bytes of the file the stored ones are. Pure.

/** A stretch of data; what lies between two is a hole. */
export interface Region {
  readonly offset: number;
  readonly bytes: number;
}

/** A map of more is no file's but an attack's. */
export const REGIONS_MAX = 100_000;
/** Of a 1.0 map, which is text in front of the data. */
export const MAP_BYTES_MAX = 4 * 1024 * 1024;

/** In the header and in each block behind it (tar.h of GNU tar). */
const OLD_PAIR_BYTES = 24;
const OLD_HEADER = { at: 386, pairs: 4, moreAt: 482 } as const;
const OLD_EXTENSION = { at: 0, pairs: 21, moreAt: 504 } as const;
/** Of the file with its holes. */
export const OLD_REAL_SIZE_AT = 483;

/** The pairs of one block of the old form, and whether another block of them follows. */
export function oldRegions(
  block: Buffer,
  where: 'header' | 'extension',
  readNumber: (offset: number) => number,
): { readonly regions: Region[]; readonly more: boolean } {
  const { at, pairs, moreAt } = where === 'header' ? OLD_HEADER : OLD_EXTENSION;
  const regions: Region[] = [];
  for (let pair = 0; pair < pairs; pair += 1) {
    const offset = at + pair * OLD_PAIR_BYTES;
    // The list ends with an empty pair.
    if (block[offset] === 0) break;
    regions.push({ offset: readNumber(offset), bytes: readNumber(offset + 12) });
  }
  return { regions, more: block[moreAt] !== 0 };
}

/** The map of the forms 0.0 and 0.1: `offset,bytes,offset,bytes`. Undefined when it is none. */
export function listedRegions(text: string): Region[] | undefined {
  return pairsOf(text === '' ? [] : text.split(','));
}

/**
 * The map of the form 1.0: a count, then the numbers, a line each, padded to a block. Undefined while
 * there is too little of it.
 */
export function leadingRegions(
  data: Buffer,
): { readonly regions: Region[] | undefined; readonly mapBytes: number } | undefined {
  const lines: string[] = [];
  let at = 0;
  let wanted = 1;
  while (lines.length < wanted) {
    const end = data.indexOf(0x0a, at);
    if (end < 0) return undefined;
    lines.push(data.toString('latin1', at, end));
    at = end + 1;
    if (lines.length > 1) continue;
    const count = numberOf(lines[0] ?? '');
    if (count === undefined || count > REGIONS_MAX) return { regions: undefined, mapBytes: at };
    wanted = 1 + 2 * count;
  }
  const mapBytes = Math.ceil(at / 512) * 512;
  if (data.length < mapBytes) return undefined;
  return { regions: pairsOf(lines.slice(1)), mapBytes };
}

/** Why these regions can't be those of a file of this size with so much data; undefined if they can. */
export function faultOf(
  regions: readonly Region[],
  file: { readonly realBytes: number; readonly storedBytes: number },
): string | undefined {
  if (regions.length > REGIONS_MAX) return `has ${regions.length} regions`;
  let end = 0;
  let stored = 0;
  for (const { offset, bytes } of regions) {
    if (offset < end || offset + bytes > file.realBytes) return 'has regions out of place';
    end = offset + bytes;
    stored += bytes;
  }
  return stored === file.storedBytes ? undefined : 'has regions that are not its data';
}

function pairsOf(numbers: readonly string[]): Region[] | undefined {
  const values = numbers.map(numberOf);
  const regions: Region[] = [];
  for (let at = 0; at < values.length; at += 2) {
    const [offset, bytes] = [values[at], values[at + 1]];
    if (offset === undefined || bytes === undefined) return undefined;
    regions.push({ offset, bytes });
  }
  return regions;
}

function numberOf(digits: string): number | undefined {
  const number = Number(digits);
  return /^[0-9]{1,15}$/.test(digits) ? number : undefined;
}
