// Whether a text is anywhere in what a process has written to its memory: as a module that it loaded
// would be.

import { closeSync, openSync, readFileSync, readSync } from 'node:fs';

/** Read in pieces of this size, each with the end of the one before it. */
const PIECE_BYTES = 4 * 1024 * 1024;

/** Searches every readable and writable private mapping of /proc/PID/mem (proc(5)). */
export function memoryHolds(pid: number, text: string): boolean {
  const wanted = Buffer.from(text, 'latin1');
  const piece = Buffer.alloc(PIECE_BYTES + wanted.length);
  const memory = openSync(`/proc/${pid}/mem`, 'r');
  try {
    for (const { from, to } of writableMappings(pid)) {
      for (let at = from; at < to; at += PIECE_BYTES) {
        const read = readAt(memory, piece, { at, length: Math.min(piece.length, to - at) });
        if (piece.subarray(0, read).includes(wanted)) return true;
      }
    }
    return false;
  } finally {
    closeSync(memory);
  }
}

function writableMappings(pid: number): { from: number; to: number }[] {
  return readFileSync(`/proc/${pid}/maps`, 'utf8')
    .split('\n')
    .flatMap((line) => {
      const [, from = '', to = ''] = /^([0-9a-f]+)-([0-9a-f]+) rw.p /.exec(line) ?? [];
      return from === '' ? [] : [{ from: Number.parseInt(from, 16), to: Number.parseInt(to, 16) }];
    });
}

function readAt(
  memory: number,
  piece: Buffer,
  { at, length }: { readonly at: number; readonly length: number },
): number {
  try {
    return readSync(memory, piece, 0, length, at);
  } catch (error) {
    // A mapping that went away in the meantime, or that the kernel keeps for itself.
    if (error instanceof Error && 'code' in error && error.code === 'EIO') return 0;
    throw error;
  }
}
