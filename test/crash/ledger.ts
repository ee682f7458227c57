/** What the controllers were told: every answer that came completely, as numbers, so that a million of them fit. */
export interface Answer {
  readonly stream: number;
  readonly sequence: number;
  readonly requestId: number;
  /** Of the reply frame's bytes; null for an observation, whose reply is not in the log. */
  readonly digest: number | null;
  readonly round: number;
}

const COLUMNS = 5;
const NO_DIGEST = -1;

export class Ledger {
  #values = new Float64Array(COLUMNS * 4096);
  #count = 0;

  get count(): number {
    return this.#count;
  }

  add({ stream, sequence, requestId, digest, round }: Answer): void {
    const at = this.#count * COLUMNS;
    if (at === this.#values.length) {
      const larger = new Float64Array(at * 2);
      larger.set(this.#values);
      this.#values = larger;
    }
    this.#values.set([stream, sequence, requestId, digest ?? NO_DIGEST, round], at);
    this.#count += 1;
  }

  at(index: number): Answer {
    const [stream = 0, sequence = 0, requestId = 0, digest = 0, round = 0] = this.#values.subarray(index * COLUMNS, (index + 1) * COLUMNS);
    return { stream, sequence, requestId, digest: digest === NO_DIGEST ? null : digest, round };
  }

  *[Symbol.iterator](): Generator<Answer> {
    for (let index = 0; index < this.#count; index++) yield this.at(index);
  }
}
