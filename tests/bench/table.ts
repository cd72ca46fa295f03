// Medians and the printed table. Pure.

/** The middle of an odd number of values, the mean of the two in the middle of an even one. */
export function median(values: readonly number[]): number {
  const sorted = [...values].sort((one, other) => one - other);
  const middle = Math.floor(sorted.length / 2);
  const upper = sorted[middle] ?? Number.NaN;
  return sorted.length % 2 === 1 ? upper : ((sorted[middle - 1] ?? upper) + upper) / 2;
}

/** What was measured: row to column to every single value. */
export class Samples {
  private readonly rows = new Map<string, Map<string, number[]>>();

  add(row: string, column: string, ...values: readonly number[]): void {
    const columns = this.rows.get(row) ?? new Map<string, number[]>();
    this.rows.set(row, columns);
    columns.set(column, [...(columns.get(column) ?? []), ...values]);
  }

  /** Undefined where nothing was measured. */
  median(row: string, column: string): number | undefined {
    const values = this.rows.get(row)?.get(column);
    return values === undefined || values.length === 0 ? undefined : median(values);
  }

  names(): readonly string[] {
    return [...this.rows.keys()];
  }
}

const LABEL_WIDTH = 38;
const COLUMN_WIDTH = 12;

/** One line per row: its name, each column's median, and ours (the first) in proportion to each other's. */
export function renderTable(
  samples: Samples,
  columns: readonly string[],
  { ratios: compared }: { readonly ratios: boolean } = { ratios: true },
): string[] {
  const [ours = '', ...rest] = columns;
  const others = compared ? rest : [];
  const heads = [...columns, ...others.map((other) => `/${other}`)];
  return [
    `${'medians'.padEnd(LABEL_WIDTH)}${heads.map(cell).join('')}`.trimEnd(),
    ...samples.names().map((row) => {
      const values = columns.map((column) => samples.median(row, column));
      const mine = samples.median(row, ours);
      const ratios = others.map((other) => {
        const theirs = samples.median(row, other);
        return mine === undefined || theirs === undefined ? '' : (mine / theirs).toFixed(2);
      });
      const cells = [...values.map(spelled), ...ratios];
      return `${row.padEnd(LABEL_WIDTH)}${cells.map(cell).join('')}`.trimEnd();
    }),
  ];
}

function cell(text: string): string {
  return text.padStart(COLUMN_WIDTH);
}

function spelled(value: number | undefined): string {
  if (value === undefined) return '';
  return value < 10 ? value.toFixed(2) : value.toFixed(value < 100 ? 1 : 0);
}
