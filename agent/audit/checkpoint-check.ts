import type { VerificationKey } from '../../protocol/envelope.ts';
import type { StoreHead } from '../store/writer.ts';
import { type Checkpoint, isSigned, parseCheckpoint } from './checkpoint.ts';
import type { Findings } from './findings.ts';
import { formatMillis } from './times.ts';

/** What the checkpoints are held against. */
export interface CheckedLog {
  /** The last entry, as it is now; null when there is none. */
  readonly head: StoreHead | null;
  /** The last entry that retention dropped, null when it dropped none. */
  readonly anchor: StoreHead | null;
  /** Head of the log that stood here before, as the first entry of this one names it; 'unknown' when that entry is gone. */
  readonly previous: StoreHead | null | 'unknown';
  /** The link of an entry as it is stored; null when it is not there. */
  linkAt(index: number): Uint8Array | null;
}

export interface CheckpointSource {
  /** For messages: 'checkpoints.jsonl', 'the store'. */
  readonly name: string;
  /** Kept elsewhere: it must fit, whatever else does. */
  readonly isExternal: boolean;
}

/** Every checkpoint is signed by the agent's key, for this agent, and the log in front of us is the one it vouches for. */
export class CheckpointCheck {
  checked = 0;
  /** Too old to compare: retention has dropped the entries they vouch for. */
  tooOld = 0;
  /** Of logs that stood here before. */
  earlier = 0;
  newest: Checkpoint | null = null;
  /** The highest index that a checkpoint vouches for and that agrees. */
  goodIndex = 0;
  readonly #log: CheckedLog;
  readonly #key: VerificationKey;
  readonly #findings: Findings;
  #agentId: string | null;
  #brokenSince: { readonly index: number; count: number } | null = null;
  #newestEarlier: Checkpoint | null = null;
  #beyond: { readonly index: number; readonly timeMillis: number } | null = null;

  constructor(log: CheckedLog, key: VerificationKey, agentId: string | null, findings: Findings) {
    this.#log = log;
    this.#key = key;
    this.#agentId = agentId;
    this.#findings = findings;
  }

  get agentId(): string | null {
    return this.#agentId;
  }

  /** Takes the checkpoints of one source in their order. `index` is the key it is stored under, null where it has none. */
  add(source: CheckpointSource, place: string, line: Uint8Array, previousMillis: number | null): Checkpoint | null {
    const checkpoint = parseCheckpoint(line);
    const where = `${place} of ${source.name}`;
    if (checkpoint === null) {
      this.#wrong(where, null, 'it is no checkpoint');
      return null;
    }
    this.checked += 1;
    if (!isSigned(checkpoint, this.#key)) {
      const why =
        checkpoint.keyId === this.#key.keyId
          ? 'its signature is not that of the agent key'
          : `it is signed by key ${checkpoint.keyId}, the agent key is ${this.#key.keyId}`;
      this.#wrong(where, checkpoint, why);
      return null;
    }
    this.#agentId ??= checkpoint.agentId;
    if (checkpoint.agentId !== this.#agentId) {
      this.#wrong(where, checkpoint, `it is of agent '${checkpoint.agentId}', '${this.#agentId}' is expected`);
      return null;
    }
    if (previousMillis !== null && checkpoint.timeMillis < previousMillis) {
      this.#findings.note(
        `the clock went back between checkpoints: ${formatMillis(previousMillis)}, then ${formatMillis(checkpoint.timeMillis)} (${where})`,
      );
    }
    if (this.newest === null || checkpoint.timeMillis >= this.newest.timeMillis) this.newest = checkpoint;
    this.#hold(checkpoint, source, where);
    return checkpoint;
  }

  /** Tells what only the whole can tell. Call once, at the end. */
  close(): void {
    const broken = this.#brokenSince;
    if (broken !== null && broken.count > 1) {
      this.#findings.note(`${broken.count - 1} later checkpoints do not agree with the log either, as is to be expected`);
    }
    this.#closeEarlier();
    if (this.#beyond === null) return;
    const { index, timeMillis } = this.#beyond;
    const detail = `a checkpoint of ${formatMillis(timeMillis)} vouches for ${index} entries: the end of the log was cut off`;
    const last = this.#log.head?.index ?? 0;
    this.#findings.add({ kind: 'missing', fromIndex: last + 1, toIndex: index, timeMicros: timeMillis * 1000, detail });
  }

  #hold(checkpoint: Checkpoint, { isExternal }: CheckpointSource, where: string): void {
    const { head, anchor } = this.#log;
    if (head === null || checkpoint.log !== head.log) {
      this.#holdEarlier(checkpoint, isExternal, where);
      return;
    }
    const { index, link, timeMillis } = checkpoint;
    if (index > head.index) {
      if (this.#beyond === null || index > this.#beyond.index) this.#beyond = { index, timeMillis };
      return;
    }
    const stored = anchor?.index === index ? anchor.link : this.#log.linkAt(index);
    if (stored === null) {
      // A missing entry is a finding of the chain already.
      if (index < (anchor?.index ?? 0)) this.tooOld += 1;
    } else if (Buffer.from(stored).equals(link)) {
      this.goodIndex = Math.max(this.goodIndex, index);
    } else if (this.#findings.isAbout(index)) {
      // The entry that it vouches for is known to be changed: nothing is said by that of those before it.
      return;
    } else if (this.#brokenSince === null || this.#brokenSince.index > index || isExternal) {
      this.#brokenSince = { index, count: (this.#brokenSince?.count ?? 0) + 1 };
      const from = this.goodIndex < index ? this.goodIndex + 1 : 1;
      const detail = `the checkpoint of ${formatMillis(timeMillis)} (${where}) vouches for another link of entry ${index}: entries were changed and linked anew`;
      this.#findings.add({ kind: 'changed', fromIndex: from, toIndex: index, timeMicros: timeMillis * 1000, detail });
    } else {
      this.#brokenSince.count += 1;
    }
  }

  /** Of a log that stood here before this one: nothing of it is left to compare but what this one says of it. */
  #holdEarlier(checkpoint: Checkpoint, isExternal: boolean, where: string): void {
    const { previous } = this.#log;
    this.earlier += 1;
    if (this.#newestEarlier === null || checkpoint.timeMillis >= this.#newestEarlier.timeMillis) this.#newestEarlier = checkpoint;
    const isNamed = previous !== null && previous !== 'unknown' && previous.log === checkpoint.log;
    if (isNamed && previous.index === checkpoint.index && !Buffer.from(previous.link).equals(checkpoint.link)) {
      this.#wrong(where, checkpoint, 'the log that is here names another link for the same entry of the log before it');
    } else if (isNamed && previous.index < checkpoint.index) {
      this.#wrong(where, checkpoint, `the log that is here says that the log before it ended at entry ${previous.index}`);
    } else if (!isNamed && isExternal) {
      this.#wrong(
        where,
        checkpoint,
        `it vouches for log ${nameOf(checkpoint)}, which is neither the one that is here nor the one before it`,
      );
    }
  }

  /** A log that is begun anew names the one before it; whoever puts an empty one in its place does not. */
  #closeEarlier(): void {
    const { previous } = this.#log;
    const newest = this.#newestEarlier;
    if (newest === null || previous === 'unknown' || previous?.log === newest.log) return;
    const detail = `log ${nameOf(newest)} had ${newest.index} entries at ${formatMillis(newest.timeMillis)}, and the log that is here does not say that it follows it`;
    this.#findings.add({ kind: 'missing', fromIndex: null, toIndex: null, timeMicros: newest.timeMillis * 1000, detail });
  }

  #wrong(where: string, checkpoint: Checkpoint | null, why: string): void {
    const timeMicros = checkpoint === null ? null : checkpoint.timeMillis * 1000;
    const detail = `${where}: ${why}`;
    const index = checkpoint?.index ?? null;
    this.#findings.add({ kind: 'checkpoint', fromIndex: index, timeMicros, detail });
  }
}

function nameOf({ log }: Checkpoint): string {
  return log.toString(16).padStart(16, '0');
}
