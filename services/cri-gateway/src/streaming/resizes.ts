// The sizes of a terminal as they come on a resize stream: JSON objects one after another.

/** An object of a size has some thirty bytes; what is longer is none. */
const PENDING_MAX = 4_096;
const SIDE_MAX = 65_535;

export interface TerminalSize {
  readonly width: number;
  readonly height: number;
}

/** Reads sizes out of pieces of any length; what is no size is skipped. */
export function createResizeReader(onSize: (size: TerminalSize) => void): (chunk: Buffer) => void {
  let pending = '';
  return (chunk) => {
    pending += chunk.toString('latin1');
    for (;;) {
      const end = pending.indexOf('}');
      if (end < 0) break;
      const size = parseSize(pending.slice(0, end + 1));
      if (size !== undefined) onSize(size);
      pending = pending.slice(end + 1);
    }
    if (pending.length > PENDING_MAX) pending = '';
  };
}

/** Go's decoder, which these clients were written for, takes names in any case. */
function parseSize(text: string): TerminalSize | undefined {
  try {
    const entries = Object.entries(JSON.parse(text) as object);
    const side = (wanted: string): number => {
      const value: unknown = entries.find(([name]) => name.toLowerCase() === wanted)?.[1] ?? 0;
      return typeof value === 'number' ? Math.min(Math.max(Math.trunc(value), 0), SIDE_MAX) : 0;
    };
    return { width: side('width'), height: side('height') };
  } catch {
    return undefined;
  }
}
