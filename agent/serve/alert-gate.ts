/** Decides which alerts are told: the first of a kind at once, then at most one per interval. Pure; the caller has the clock. */
export class AlertGate {
  readonly #intervalMillis: number;
  readonly #limit: number;
  readonly #toldAtMillis = new Map<string, number>();

  /** @param limit kinds remembered; beyond it everything is forgotten, so that an alert may be told twice but never lost */
  constructor(intervalMillis: number, limit: number) {
    this.#intervalMillis = intervalMillis;
    this.#limit = limit;
  }

  allows(kind: string, nowMillis: number): boolean {
    const told = this.#toldAtMillis.get(kind);
    if (told !== undefined && nowMillis - told < this.#intervalMillis) return false;
    if (this.#toldAtMillis.size >= this.#limit) this.#toldAtMillis.clear();
    this.#toldAtMillis.set(kind, nowMillis);
    return true;
  }
}
