import type { Findings } from './findings.ts';

interface Range {
  readonly from: number;
  to: number;
}

const MAX_RANGES = 1000;

/**
 * What is gone was dropped by retention, which says so in an entry of its own, and always takes the oldest. Anything else
 * that is gone was removed by somebody. Pure.
 */
export class DroppedCheck {
  readonly #findings: Findings;
  /** Entries whose telemetry is gone; another range begins behind each entry that has its own. */
  readonly #ranges: Range[] = [];
  #isExtending = false;
  #telemetryTo = 0;
  #recordsTo = 0;

  constructor(findings: Findings) {
    this.#findings = findings;
  }

  /** Whether something is gone that no entry has stated yet. */
  get isOpen(): boolean {
    return (this.#ranges.at(-1)?.to ?? 0) > this.#telemetryTo;
  }

  missing(index: number): void {
    const last = this.#ranges.at(-1);
    if (last !== undefined && (this.#isExtending || this.#ranges.length >= MAX_RANGES)) last.to = index;
    else this.#ranges.push({ from: index, to: index });
    this.#isExtending = true;
  }

  kept(): void {
    this.#isExtending = false;
  }

  /** An entry says that everything up to an index was dropped. */
  stated(what: 'telemetry' | 'records', toIndex: number): void {
    if (what === 'telemetry') this.#telemetryTo = Math.max(this.#telemetryTo, toIndex);
    else this.#recordsTo = Math.max(this.#recordsTo, toIndex);
  }

  /** Call at the end. @param anchorIndex the last entry that is gone as a whole, 0 for none */
  close(anchorIndex: number): void {
    for (const { from, to } of this.#ranges) {
      if (to <= this.#telemetryTo) continue;
      const fromIndex = Math.max(from, this.#telemetryTo + 1);
      const detail = 'features or outputs are gone, and no entry says that retention dropped them';
      this.#findings.add({ kind: 'missing', fromIndex, toIndex: to, detail });
    }
    if (anchorIndex > this.#recordsTo) {
      const detail = 'the oldest entries are gone, and no entry says that retention dropped them';
      this.#findings.add({ kind: 'missing', fromIndex: this.#recordsTo + 1, toIndex: anchorIndex, detail });
    }
  }
}
