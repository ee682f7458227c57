/** Statistics of repeated rounds: medians, because a shared machine throws outliers that a mean would keep. */

/** The median of finite values, or null when there is none. An even count gives the mean of the two in the middle. */
export function median(values: readonly number[]): number | null {
  const sorted = values.filter(Number.isFinite).sort((left, right) => left - right);
  if (sorted.length === 0) return null;
  const middle = sorted.length >> 1;
  const upper = sorted[middle] ?? Number.NaN;
  if (sorted.length % 2 === 1) return upper;
  return ((sorted[middle - 1] ?? Number.NaN) + upper) / 2;
}

/** numerator / denominator, or null where either is missing or the denominator is 0. */
export function ratio(numerator: number | null, denominator: number | null): number | null {
  if (numerator === null || denominator === null || denominator === 0) return null;
  const quotient = numerator / denominator;
  return Number.isFinite(quotient) ? quotient : null;
}

/**
 * The median of the ratios of the rounds. Two contenders measured in the same round saw the same neighbours, so a ratio
 * within a round cancels most of the noise that a ratio of medians keeps.
 */
export function medianRatio(numerators: readonly (number | null)[], denominators: readonly (number | null)[]): number | null {
  const ratios = numerators.map((numerator, round) => ratio(numerator, denominators[round] ?? null));
  return median(ratios.filter((one) => one !== null));
}

/** The order of round `round`: the list rotated by one a round, so that nobody always runs first or after the same one. */
export function rotated<Item>(items: readonly Item[], round: number): Item[] {
  if (items.length === 0) return [];
  const start = round % items.length;
  return [...items.slice(start), ...items.slice(0, start)];
}
