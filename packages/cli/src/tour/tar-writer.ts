// Writes the few kinds of tar entries that a small image needs (ustar, pax(1) "ustar Interchange
// Format"). Reading untrusted archives is image-service's business, not this file's.

export type TarEntry =
  | {
      readonly kind: 'file';
      readonly path: string;
      readonly mode: number;
      readonly data: Uint8Array;
    }
  | { readonly kind: 'directory'; readonly path: string; readonly mode: number }
  | { readonly kind: 'symlink'; readonly path: string; readonly target: string }
  | { readonly kind: 'hardlink'; readonly path: string; readonly target: string };

const BLOCK_BYTES = 512;
const TYPE_FLAGS = { file: '0', hardlink: '1', symlink: '2', directory: '5' } as const;

/** A whole archive, owned by root, with times of 1970 so that equal content has an equal digest. */
export function writeTar(entries: readonly TarEntry[]): Buffer {
  const blocks: Buffer[] = [];
  for (const entry of entries) {
    const data = entry.kind === 'file' ? Buffer.from(entry.data) : Buffer.alloc(0);
    blocks.push(header(entry, data.length), data, padding(data.length));
  }
  blocks.push(Buffer.alloc(2 * BLOCK_BYTES));
  return Buffer.concat(blocks);
}

function padding(length: number): Buffer {
  return Buffer.alloc((BLOCK_BYTES - (length % BLOCK_BYTES)) % BLOCK_BYTES);
}

function header(entry: TarEntry, size: number): Buffer {
  const block = Buffer.alloc(BLOCK_BYTES);
  const path = entry.kind === 'directory' ? `${entry.path}/` : entry.path;
  if (Buffer.byteLength(path) > 100) throw new Error(`tar path ${path} is over 100 bytes`);
  block.write(path, 0);
  const mode = 'mode' in entry ? entry.mode : 0o777;
  writeOctal(block, mode, 100, 8);
  writeOctal(block, 0, 108, 8);
  writeOctal(block, 0, 116, 8);
  writeOctal(block, size, 124, 12);
  writeOctal(block, 0, 136, 12);
  block.write('        ', 148);
  block.write(TYPE_FLAGS[entry.kind], 156);
  if ('target' in entry) block.write(entry.target, 157);
  block.write('ustar\u000000', 257);
  const sum = block.reduce((total, byte) => total + byte, 0);
  block.write(`${sum.toString(8).padStart(6, '0')}\0 `, 148);
  return block;
}

function writeOctal(block: Buffer, value: number, offset: number, width: number): void {
  block.write(`${value.toString(8).padStart(width - 1, '0')}\0`, offset);
}
