/**
 * A seeded generator of pseudo-random numbers: sfc32 (Doty-Humphrey, PractRand), seeded through splitmix32. The normal
 * deviates use the polar form of Box and Muller's method, which needs only log and sqrt: V8 computes both alike on every
 * machine, so a seed gives the same bytes everywhere.
 */
export class Random {
  #a: number;
  #b: number;
  #c: number;
  #counter = 1;
  #spare: number | null = null;

  /** @param stream tells apart generators of one seed, so that one consumer's draws never shift another's */
  constructor(seed: number, stream = 0) {
    const next = splitmix32((seed ^ Math.imul(stream + 1, 0x9e3779b1)) >>> 0);
    this.#a = next();
    this.#b = next();
    this.#c = next();
    // 12 rounds mix the seed through the whole state, as PractRand does.
    for (let round = 0; round < 12; round++) this.uniform();
  }

  /** A multiple of 2^-32 in [0, 1). */
  uniform(): number {
    const sum = (((this.#a + this.#b) | 0) + this.#counter) | 0;
    this.#counter = (this.#counter + 1) | 0;
    this.#a = this.#b ^ (this.#b >>> 9);
    this.#b = (this.#c + (this.#c << 3)) | 0;
    this.#c = (((this.#c << 21) | (this.#c >>> 11)) + sum) | 0;
    return (sum >>> 0) / 4294967296;
  }

  between(low: number, high: number): number {
    return low + (high - low) * this.uniform();
  }

  normal(mean = 0, standardDeviation = 1): number {
    if (this.#spare !== null) {
      const spare = this.#spare;
      this.#spare = null;
      return mean + standardDeviation * spare;
    }
    for (;;) {
      const x = 2 * this.uniform() - 1;
      const y = 2 * this.uniform() - 1;
      const square = x * x + y * y;
      if (square > 0 && square < 1) {
        const factor = Math.sqrt((-2 * Math.log(square)) / square);
        this.#spare = y * factor;
        return mean + standardDeviation * x * factor;
      }
    }
  }
}

function splitmix32(seed: number): () => number {
  let state = seed | 0;
  return () => {
    state = (state + 0x9e3779b9) | 0;
    let mixed = Math.imul(state ^ (state >>> 16), 0x21f0aaad);
    mixed = Math.imul(mixed ^ (mixed >>> 15), 0x735a2d97);
    return mixed ^ (mixed >>> 15);
  };
}
