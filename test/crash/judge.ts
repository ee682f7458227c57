import type { Answer } from './ledger.ts';
import { isObservation } from './requests.ts';

/** Where a record was found. */
export type Place = 'store' | 'journal';

/** A record of the log, as far as it matters to what was answered. */
export interface Found {
  readonly place: Place;
  readonly stream: number;
  readonly sequence: number;
  readonly kind: 'decision' | 'observation' | 'alert' | 'gap';
  /** Of the request, null for alerts and gaps. */
  readonly requestId: number | null;
  /** Of the reply frame's bytes; null where there is none. */
  readonly digest: number | null;
  /** The request is not, byte for byte, what was sent, or the record is not whole. */
  readonly isAltered: boolean;
  /** First number that a gap record stands for. */
  readonly gapFrom: number | null;
}

interface Known {
  readonly requestId: number | null;
  readonly digest: number | null;
  readonly gapFrom: number | null;
  places: number;
}

const PLACE_BITS = { store: 1, journal: 2 } as const;
/** More than this of one kind tells nothing new. */
const EXAMPLES = 10;

/** What is wrong with a log, by kind; every count is 0 in a sound one. */
export interface Verdict {
  /** Records of the log, each number once. */
  readonly records: number;
  /** Numbers of answered requests that no record has. */
  readonly missing: number;
  /** Records that are there twice, and requests that were decided twice. */
  readonly duplicated: number;
  /** Other bytes than were answered or sent, and numbers with two different records. */
  readonly wrong: number;
  /** Numbers without a record and without a gap record. */
  readonly holes: number;
  /** Numbers that gap records state as lost. */
  readonly statedLost: number;
  /** The first of each kind, in words. */
  readonly examples: readonly string[];
}

type Fault = 'missing' | 'duplicated' | 'wrong' | 'holes' | 'statedLost';

/** Takes the records of a log, then the answers, and says what does not fit. */
export class Judge {
  readonly #streams = new Map<number, Map<number, Known>>();
  readonly #requestIds = new Map<number, string>();
  readonly #counts: Record<Fault, number> = { missing: 0, duplicated: 0, wrong: 0, holes: 0, statedLost: 0 };
  readonly #examples: Record<Fault, string[]> = { missing: [], duplicated: [], wrong: [], holes: [], statedLost: [] };

  record(found: Found): void {
    const { place, stream, sequence, requestId, digest, gapFrom } = found;
    const name = `${stream}/${sequence}`;
    if (found.isAltered) this.#fault('wrong', `${found.kind} ${name} in the ${place} is not what was sent (request ${requestId})`);
    let known = this.#streams.get(stream);
    if (known === undefined) this.#streams.set(stream, (known = new Map<number, Known>()));
    const before = known.get(sequence);
    if (before === undefined) {
      known.set(sequence, { requestId, digest, gapFrom, places: PLACE_BITS[place] });
      if (requestId !== null) this.#once(requestId, name);
      return;
    }
    if ((before.places & PLACE_BITS[place]) !== 0) this.#fault('duplicated', `${found.kind} ${name} is in the ${place} twice`);
    // A record is in both between its commit to the store and the end of its segment.
    if (before.requestId !== requestId || before.digest !== digest) this.#fault('wrong', `${name} has two different records`);
    before.places |= PLACE_BITS[place];
  }

  #once(requestId: number, name: string): void {
    const other = this.#requestIds.get(requestId);
    if (other === undefined) this.#requestIds.set(requestId, name);
    else this.#fault('duplicated', `request ${requestId} has two records, ${other} and ${name}`);
  }

  answer(answer: Answer): void {
    const { stream, sequence, requestId, digest, round } = answer;
    const known = this.#streams.get(stream)?.get(sequence);
    const name = `${isObservation(requestId) ? 'observation' : 'decision'} ${stream}/${sequence} (request ${requestId}, round ${round})`;
    if (known === undefined) this.#fault('missing', `${name} was answered and is nowhere`);
    else if (known.requestId !== requestId)
      this.#fault('missing', `${name} was answered and is nowhere: its number was given again, to request ${known.requestId}`);
    else if (known.digest !== digest) this.#fault('wrong', `${name} is not what was answered`);
  }

  verdict(): Verdict {
    let records = 0;
    for (const [stream, known] of this.#streams) {
      records += known.size;
      this.#findHoles(stream, known);
    }
    return { records, ...this.#counts, examples: Object.values(this.#examples).flat() };
  }

  #findHoles(stream: number, known: ReadonlyMap<number, Known>): void {
    let last = 0;
    for (const sequence of [...known.keys()].sort((one, other) => one - other)) {
      const gapFrom = known.get(sequence)?.gapFrom ?? null;
      if (gapFrom !== null) this.#fault('statedLost', `${stream}/${gapFrom} to ${sequence} are stated as lost`, sequence - gapFrom + 1);
      const first = gapFrom ?? sequence;
      if (first > last + 1) this.#fault('holes', `${stream}/${last + 1} to ${first - 1} have no record`, first - last - 1);
      last = sequence;
    }
  }

  #fault(fault: Fault, example: string, count = 1): void {
    this.#counts[fault] += count;
    if (this.#examples[fault].length < EXAMPLES) this.#examples[fault].push(`${fault}: ${example}`);
  }
}

/** Nobody pulled the plug and the disk has room: a record that is stated as lost would be lost by us. */
export function isSound({ missing, duplicated, wrong, holes, statedLost }: Verdict): boolean {
  return missing + duplicated + wrong + holes + statedLost === 0;
}
