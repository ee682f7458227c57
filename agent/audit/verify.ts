import { readdirSync } from 'node:fs';
import { basename, join } from 'node:path';
import { SetpointError } from '../../protocol/errors.ts';
import type { VerificationKey } from '../../protocol/envelope.ts';
import { genesisLink, LINK_BYTES } from '../store/chain.ts';
import { checkpointFile } from '../store/checkpoint-keeper.ts';
import { type Entry, EVENT_KIND } from '../store/entry.ts';
import { storesSetAside } from '../store/quarantine.ts';
import type { StoredEntry, StoreReader } from '../store/reader.ts';
import type { StoreHead } from '../store/writer.ts';
import { loadAgentPublicKey } from './agent-key.ts';
import { ChainCheck, type ChainCounts } from './chain-check.ts';
import { CheckpointCheck } from './checkpoint-check.ts';
import { linesOf } from './checkpoint-lines.ts';
import { DroppedCheck } from './dropped-check.ts';
import { Findings } from './findings.ts';
import { LogView, type TailTrouble } from './log-view.ts';
import type { Verification } from './messages.ts';
import { troubleText } from './notices.ts';
import { SequenceCheck } from './sequence-check.ts';

export interface VerifyResult {
  readonly findings: Findings;
  readonly agentId: string | null;
  readonly keyId: string;
  /** The end of the log that was checked; null when there is no store. */
  readonly head: StoreHead | null;
  readonly anchor: StoreHead | null;
  readonly chain: ChainCounts;
  readonly sequences: SequenceCheck;
  readonly checkpoints: CheckpointCheck;
  /** Records in the journal that are not stored yet. */
  readonly journalRecords: number;
}

/** As many entries as the store gives at once. */
const LINKS_KEPT = 1000;
const NO_INDEX = { fromIndex: null, toIndex: null } as const;

/**
 * Walks the whole log: every entry of the store, every checkpoint, and the journal behind what is stored. The agent may run:
 * what is checked is the log as it is when this begins.
 */
export async function verifyLog(job: Verification): Promise<VerifyResult> {
  const key = loadAgentPublicKey(job.keyPath);
  const findings = new Findings();
  const view = LogView.open(job.dataDirectory);
  try {
    const { store, head } = view;
    // Retention may drop the oldest entries meanwhile; where it had come to is read before they are.
    const anchor = store?.anchor() ?? null;
    const sequences = new SequenceCheck(findings, anchor === null);
    const walk = new Walk(view, anchor, findings, sequences);
    if (store !== null && head !== null) walk.entries(store, head);
    const journalRecords = checkJournal(view, findings, sequences);
    const checkpoints = checkCheckpoints(job, key, store, walk, findings);
    noteSetAside(job.dataDirectory, findings);
    findings.close();
    return {
      findings,
      agentId: checkpoints.agentId,
      keyId: key.keyId,
      head,
      anchor,
      chain: walk.chain.counts,
      sequences,
      checkpoints,
      journalRecords,
    };
  } finally {
    await view.close();
  }
}

/** The entries of the store, one after the other. */
class Walk {
  readonly chain: ChainCheck;
  readonly anchor: StoreHead | null;
  /** As the first entry says; 'unknown' when it is gone. */
  previous: StoreHead | null | 'unknown' = 'unknown';
  readonly #view: LogView;
  readonly #findings: Findings;
  readonly #sequences: SequenceCheck;
  readonly #dropped: DroppedCheck;

  constructor(view: LogView, anchor: StoreHead | null, findings: Findings, sequences: SequenceCheck) {
    this.#view = view;
    this.#findings = findings;
    this.#sequences = sequences;
    this.#dropped = new DroppedCheck(findings);
    this.anchor = anchor;
    const start = anchor ?? (view.head === null ? { index: 0, link: null } : { index: 0, link: genesisLink(view.head.log) });
    this.chain = new ChainCheck(start, { findings, sequences, onDropped: (index) => this.#dropped.missing(index) });
  }

  entries(store: StoreReader, head: StoreHead): void {
    for (const stored of store.entries(1)) {
      if (stored.index > head.index) {
        this.#later(store, stored, head);
        break;
      }
      this.#take(store, stored);
    }
    this.chain.missing(head.index);
    const { link } = this.chain;
    if (link !== null && !Buffer.from(link).equals(head.link)) {
      const detail = 'its link is not the one that the store names as its head';
      this.#findings.add({ kind: 'changed', fromIndex: head.index, timeMicros: this.chain.counts.lastMicros, detail });
    }
    for (const { stream, lastSequence } of this.#view.positions) this.#sequences.expect(stream, lastSequence, head.index + 1);
    this.#dropped.close(this.anchor?.index ?? 0);
  }

  #take(store: StoreReader, stored: StoredEntry): void {
    const { index } = stored;
    if (index <= this.chain.index) {
      const detail = `it stands below entry ${this.chain.index + 1}, the first that is said to be kept`;
      this.#findings.add({ kind: 'moved', fromIndex: index, detail });
      return;
    }
    if (index > this.chain.index + 1) {
      const now = store.anchor();
      // Dropped since the walk began: the same retention, a moment later.
      if (now !== null && now.index >= index - 1 && now.index > (this.anchor?.index ?? 0)) {
        this.chain.skip(index - 1, now.index === index - 1 ? now.link : null);
      }
    }
    const entry = this.chain.add(stored);
    if (stored.telemetry !== null) this.#dropped.kept();
    if (entry?.kind === EVENT_KIND) this.#event(entry);
  }

  #event({ request, index }: Entry): void {
    const body = eventBody(request);
    if (body['event'] === 'begun' && index === 1) this.previous = previousOf(body['previous']);
    if (body['event'] === 'dropped' && typeof body['toIndex'] === 'number') {
      this.#dropped.stated(body['what'] === 'telemetry' ? 'telemetry' : 'records', body['toIndex']);
    }
  }

  /** What was dropped while this walk went on is stated in entries behind its end. */
  #later(store: StoreReader, first: StoredEntry, head: StoreHead): void {
    if (!this.#dropped.isOpen && store.anchor()?.index === this.anchor?.index) return;
    const later = new ChainCheck(head, {
      findings: new Findings(),
      sequences: new SequenceCheck(new Findings(), false),
      onDropped: () => {},
    });
    for (const stored of store.entries(first.index)) {
      const entry = later.add(stored);
      if (entry?.kind === EVENT_KIND) this.#event(entry);
    }
  }
}

function eventBody(request: Uint8Array): Readonly<Record<string, unknown>> {
  return JSON.parse(new TextDecoder().decode(request)) as Record<string, unknown>;
}

function previousOf(value: unknown): StoreHead | null {
  if (typeof value !== 'object' || value === null) return null;
  const { log, index, link } = value as Record<string, unknown>;
  return { log: BigInt(`0x${String(log)}`), index: Number(index), link: Uint8Array.from(Buffer.from(String(link), 'hex')) };
}

/** The journal behind what is stored goes on where the store ends, number by number. */
function checkJournal(view: LogView, findings: Findings, sequences: SequenceCheck): number {
  let records = 0;
  const onTrouble = (trouble: TailTrouble): void => {
    const detail = troubleText(trouble);
    if (trouble.type === 'failing') findings.note(detail);
    else findings.add({ kind: trouble.type === 'hole' ? 'hole' : 'journal', ...NO_INDEX, detail });
  };
  for (const record of view.journalRecords(onTrouble)) {
    records += 1;
    sequences.stated(record);
  }
  return records;
}

function checkCheckpoints(
  job: Verification,
  key: VerificationKey,
  store: StoreReader | null,
  walk: Walk,
  findings: Findings,
): CheckpointCheck {
  const links = new StoredLinks(store);
  const log = {
    // As it is now: the agent goes on making checkpoints while the log is walked.
    get head() {
      return store?.head() ?? null;
    },
    anchor: walk.anchor,
    previous: walk.previous,
    linkAt: (index: number) => links.at(index),
  };
  const check = new CheckpointCheck(log, key, job.agentId, findings);
  const path = checkpointFile(job.dataDirectory);
  let previousMillis: number | null = null;
  for (const { number, bytes, isWhole } of linesOf(path)) {
    // A line that a crash cut short is no proof of anything, and neither is one that is being written.
    if (isWhole && !isCutShort(bytes)) {
      previousMillis =
        check.add({ name: basename(path), isExternal: false }, `line ${number}`, bytes, previousMillis)?.timeMillis ?? previousMillis;
    } else if (isWhole) findings.note(`line ${number} of ${basename(path)} was cut short`);
  }
  previousMillis = null;
  for (const { index, bytes } of store?.checkpoints() ?? []) {
    const checkpoint = check.add({ name: 'the store', isExternal: false }, `checkpoint ${index}`, bytes, previousMillis);
    previousMillis = checkpoint?.timeMillis ?? previousMillis;
    if (checkpoint !== null && checkpoint.index !== index) {
      findings.add({
        kind: 'checkpoint',
        fromIndex: index,
        detail: `checkpoint ${index} of the store is one of entry ${checkpoint.index}`,
      });
    }
  }
  if (job.checkpointPath !== null) checkExternal(job.checkpointPath, check);
  check.close();
  return check;
}

function checkExternal(path: string, check: CheckpointCheck): void {
  let lines = 0;
  for (const { number, bytes } of linesOf(path)) {
    lines += 1;
    check.add({ name: path, isExternal: true }, `line ${number}`, bytes, null);
  }
  if (lines > 0) return;
  throw new SetpointError('not_found', `Cannot check against ${path}: there is no checkpoint in it`, {
    remedy: 'give a file that setpoint-agent audit checkpoint wrote',
  });
}

/** The start of a line as createCheckpoint() writes it, without its end. */
function isCutShort(line: Uint8Array): boolean {
  const text = Buffer.from(line).toString('utf8');
  return !text.endsWith('"}') && '{"body":"setpoint.checkpoint.v1'.startsWith(text.slice(0, 31));
}

/**
 * Links by index. Checkpoints come in the order of the log, often several to a thousand entries: those behind the one that
 * was asked for are kept for the next questions.
 */
class StoredLinks {
  readonly #store: StoreReader | null;
  readonly #links = new Map<number, Uint8Array>();

  constructor(store: StoreReader | null) {
    this.#store = store;
  }

  at(index: number): Uint8Array | null {
    const known = this.#links.get(index);
    if (known !== undefined) return known;
    this.#links.clear();
    for (const entry of this.#store?.entries(index) ?? []) {
      this.#links.set(entry.index, entry.bytes.slice(0, LINK_BYTES));
      if (this.#links.size === LINKS_KEPT) break;
    }
    return this.#links.get(index) ?? null;
  }
}

function noteSetAside(dataDirectory: string, findings: Findings): void {
  for (const name of storesSetAside(dataDirectory)) {
    findings.note(`${join(dataDirectory, name)} is a store that was set aside; its entries are not in this log`);
  }
  for (const name of damagedSegments(join(dataDirectory, 'journal'))) {
    findings.note(`${name} is a file of the journal that was set aside; what it still holds is not in this log`);
  }
}

function damagedSegments(journalDirectory: string): string[] {
  try {
    return readdirSync(journalDirectory)
      .filter((name) => name.includes('.damaged-'))
      .sort();
  } catch {
    // No journal folder: nothing was set aside.
    return [];
  }
}
