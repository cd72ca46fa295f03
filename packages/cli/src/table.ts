// Tables for people: columns by width, lines of at most 100 columns. Pure.

export const COLUMNS_MAX = 100;
const GAP = 2;
const COLUMN_MIN = 8;

/**
 * Aligns rows below a head, without trailing blanks. Where the lines would be longer than 100
 * columns the widest column is cut, again and again, and its cells end in an ellipsis; never one
 * whose head is in `whole`.
 */
export function table(
  head: readonly string[],
  rows: readonly (readonly string[])[],
  whole: readonly string[] = [],
): string[] {
  const all = [head, ...rows];
  const widths = head.map((_, index) => Math.max(...all.map((row) => (row[index] ?? '').length)));
  const total = () => widths.reduce((sum, width) => sum + width, 0) + GAP * (widths.length - 1);
  while (total() > COLUMNS_MAX) {
    const cuttable = widths.map((width, index) => (whole.includes(head[index] ?? '') ? 0 : width));
    const widest = cuttable.indexOf(Math.max(...cuttable));
    const width = cuttable[widest] ?? 0;
    if (width <= COLUMN_MIN) break;
    widths[widest] = width - 1;
  }
  return all.map((row) =>
    widths
      .map((width, index) => cut(row[index] ?? '', width).padEnd(width))
      .join(' '.repeat(GAP))
      .trimEnd(),
  );
}

function cut(text: string, width: number): string {
  return text.length <= width ? text : `${text.slice(0, width - 1)}…`;
}

/** A span of time in its largest unit, as in `3m`. */
export function age(seconds: number): string {
  if (seconds < 60) return `${seconds}s`;
  if (seconds < 3_600) return `${Math.floor(seconds / 60)}m`;
  if (seconds < 86_400) return `${Math.floor(seconds / 3_600)}h`;
  return `${Math.floor(seconds / 86_400)}d`;
}

/** Bytes in units of 1000, as crictl prints sizes. */
export function size(bytes: bigint): string {
  const units = ['B', 'kB', 'MB', 'GB', 'TB'];
  let value = Number(bytes);
  let unit = 0;
  while (value >= 1000 && unit < units.length - 1) {
    value /= 1000;
    unit += 1;
  }
  return `${unit === 0 ? value : Number(value.toPrecision(3))}${units[unit]}`;
}

/**
 * Breaks a sentence at blanks into lines of at most 100 columns, the later ones indented; blanks in
 * front of it stay.
 */
export function wrapped(text: string, indent: string): string[] {
  const lines: string[] = [];
  const words = text.trimStart();
  let line = '';
  for (const word of words.split(' ')) {
    if (line !== '' && line.length + 1 + word.length > COLUMNS_MAX) {
      lines.push(line);
      line = `${indent}${word}`;
    } else {
      line = line === '' ? `${text.slice(0, -words.length)}${word}` : `${line} ${word}`;
    }
  }
  return [...lines, line];
}

/** Texts beside each other below each other's heads; a long one is broken into lines of its column. */
export function columns(
  rows: readonly { readonly label: string; readonly cells: readonly string[] }[],
): string[] {
  const count = Math.max(...rows.map((row) => row.cells.length));
  const labels = GAP + Math.max(...rows.map((row) => row.label.length));
  const width = Math.floor((COLUMNS_MAX - labels) / count) - GAP;
  return rows.flatMap(({ label, cells }) => {
    const broken = cells.map((cell) => brokenAt(cell, width));
    const height = Math.max(...broken.map((lines) => lines.length));
    return Array.from({ length: height }, (_, index) => {
      const first = `  ${index === 0 ? label : ''}`.padEnd(labels);
      const texts = broken.map((lines) => (lines[index] ?? '').padEnd(width));
      return [first, ...texts].join(' '.repeat(GAP)).trimEnd();
    });
  });
}

/** At blanks where there are some, else anywhere. */
function brokenAt(text: string, width: number): string[] {
  const lines: string[] = [];
  let rest = text;
  while (rest.length > width) {
    const blank = rest.lastIndexOf(' ', width);
    const end = blank <= 0 ? width : blank;
    lines.push(rest.slice(0, end));
    rest = rest.slice(end).trimStart();
  }
  return [...lines, rest];
}
