import { z } from 'zod';
import { formatCell, type Table } from './table.ts';

/** The budgets of bench/budgets.json and what a run says about them. Pure: the caller reads the file. */
const BENCH_NAMES = ['latency', 'throughput', 'peers', 'durability', 'store'] as const;

const budgetSchema = z
  .strictObject({
    id: z.string().min(1),
    /** The bench that measures it. */
    bench: z.enum(BENCH_NAMES),
    what: z.string().min(1),
    /** 0 is a limit, too: of errors. */
    atMost: z.number().nonnegative().optional(),
    atLeast: z.number().positive().optional(),
    unit: z.enum(['x', 'us', '/s', 'errors']),
  })
  .refine(({ atMost, atLeast }) => (atMost === undefined) !== (atLeast === undefined), {
    message: 'give exactly one of atMost, atLeast',
  });

const budgetsSchema = z
  .strictObject({
    /** One run of the bench model alone on the machine the absolute budgets were set for. */
    reference: z.strictObject({ ortRunMicros: z.number().positive(), machine: z.string().min(1) }),
    budgets: z.array(budgetSchema).min(1),
  })
  .refine(({ budgets }) => new Set(budgets.map(({ id }) => id)).size === budgets.length, { message: 'every budget needs its own id' });

export type Budget = z.infer<typeof budgetSchema>;
export type Budgets = z.infer<typeof budgetsSchema>;
export type Verdict = 'met' | 'missed' | 'not measured';

/** Values a run measured, by budget id; absent or null when it could not. */
export type Measures = Readonly<Record<string, number | null>>;

/** @throws Error that names the key and what is wrong with it */
export function parseBudgets(text: string): Budgets {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (cause) {
    throw new Error('Cannot read budgets.json: it is not JSON', { cause });
  }
  const result = budgetsSchema.safeParse(value);
  if (result.success) return result.data;
  const issue = result.error.issues[0];
  throw new Error(`Cannot read budgets.json: ${issue?.path.join('.') || '(top level)'}: ${issue?.message ?? 'is wrong'}`);
}

/** The limit itself meets the budget. A value that is missing or not finite is 'not measured', which is not a pass. */
export function verdictOf(budget: Budget, measured: number | null | undefined): Verdict {
  if (measured === null || measured === undefined || !Number.isFinite(measured)) return 'not measured';
  const met = (budget.atMost === undefined || measured <= budget.atMost) && (budget.atLeast === undefined || measured >= budget.atLeast);
  return met ? 'met' : 'missed';
}

/** How much slower this machine ran the model alone than the reference did; 1 is equal, 2 half as fast. */
export function machineFactor(budgets: Budgets, ortRunMicros: number | null): number | null {
  return ortRunMicros === null ? null : ortRunMicros / budgets.reference.ortRunMicros;
}

/**
 * The verdicts as a table. An absolute budget is judged by what was measured, whatever the machine; the column
 * `atReference` divides it by the machine factor and is there to explain a miss, not to excuse it.
 */
export function verdictTable(budgets: Budgets, measures: Measures, factor: number | null): Table {
  const number = { key: '', label: '', digits: 2 };
  const rows = budgets.budgets.map((budget) => {
    const measured = measures[budget.id] ?? null;
    const column = { ...number, suffix: ` ${budget.unit}` };
    const scaled = budget.unit === 'us' && measured !== null && factor !== null ? measured / factor : null;
    return {
      budget: budget.what,
      limit: `${budget.atMost === undefined ? '>=' : '<='} ${formatCell(budget.atMost ?? budget.atLeast, column)}`,
      measured: measured === null ? null : formatCell(measured, column),
      atReference: scaled === null ? null : formatCell(scaled, column),
      verdict: verdictOf(budget, measured),
    };
  });
  return {
    title: 'budgets',
    columns: [
      { key: 'budget', label: 'budget' },
      { key: 'limit', label: 'limit' },
      { key: 'measured', label: 'measured' },
      { key: 'atReference', label: 'at reference speed' },
      { key: 'verdict', label: 'verdict' },
    ],
    rows,
    notes: [
      `machine factor ${formatCell(factor, { ...number, suffix: 'x' })}: one run of the model alone here / ${budgets.reference.ortRunMicros} us (${budgets.reference.machine})`,
      'verdicts are on measured values; "at reference speed" only tells a slow machine from a slow agent',
    ],
  };
}

/** True when every budget is met; one that was not measured is not. */
export function allMet(budgets: Budgets, measures: Measures): boolean {
  return budgets.budgets.every((budget) => verdictOf(budget, measures[budget.id]) === 'met');
}
