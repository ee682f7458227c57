/**
 * A table of results. The terminal and the JSON file show the same object, so they cannot disagree.
 */
export type Cell = number | string | null;

export interface Column {
  readonly key: string;
  readonly label: string;
  /** Decimals of a number; the default is 0. The JSON file keeps the full value. */
  readonly digits?: number;
  /** Written after every number of the column, for example 'x' or '%'. */
  readonly suffix?: string;
}

export interface Table {
  readonly title: string;
  readonly columns: readonly Column[];
  readonly rows: readonly Readonly<Record<string, Cell>>[];
  /** What a reader must know to read the table right. */
  readonly notes?: readonly string[];
}

/** What stands where nothing was measured. */
const MISSING = '-';

export function formatCell(cell: Cell | undefined, column: Column): string {
  if (cell === null || cell === undefined) return MISSING;
  if (typeof cell === 'string') return cell;
  return `${withThousands(cell.toFixed(column.digits ?? 0))}${column.suffix ?? ''}`;
}

function withThousands(digits: string): string {
  const [whole = '', fraction] = digits.split('.');
  const grouped = whole.replace(/\B(?=(\d{3})+$)/g, ',');
  return fraction === undefined ? grouped : `${grouped}.${fraction}`;
}

/** The table as lines of text: the first column left, the others right, two spaces between. */
export function renderTable(table: Table): string {
  const cells = [
    table.columns.map((column) => column.label),
    ...table.rows.map((row) => table.columns.map((column) => formatCell(row[column.key], column))),
  ];
  const widths = table.columns.map((_, index) => Math.max(...cells.map((line) => line[index]?.length ?? 0)));
  const lines = cells.map((line) =>
    line
      .map((text, index) => (index === 0 ? text.padEnd(widths[index] ?? 0) : text.padStart(widths[index] ?? 0)))
      .join('  ')
      .trimEnd(),
  );
  const rule = widths.map((width) => '-'.repeat(width)).join('  ');
  return [table.title, lines[0], rule, ...lines.slice(1), ...(table.notes ?? []).map((note) => `  ${note}`)].join('\n');
}
