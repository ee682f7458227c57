import { Journal } from '../../../agent/journal/journal.ts';
import { MarkFile, markPath } from '../../../agent/journal/mark-file.ts';
import { RECORD_KINDS } from '../../../agent/journal/record.ts';
import type { JournalOptions } from '../../../agent/journal/settings.ts';
import { SetpointError } from '../../../protocol/errors.ts';
import { type Content, SimulatedDisk, SimulatedTimers, systemError } from './simulated-disk.ts';
import { contentsOf, type StreamContents } from './stream-contents.ts';

export const DIRECTORY = '/journal';
const EMPTY = new Uint8Array(0);

/** A journal on a simulated disk, whose timers run when they are told to. */
export class Setup {
  readonly disk: SimulatedDisk;
  readonly timers = new SimulatedTimers();
  readonly syncFailures: SetpointError[] = [];
  readonly episodes: unknown[] = [];
  readonly journal: Journal;

  constructor(options: Partial<JournalOptions> = {}, content?: Content, prepare: (disk: SimulatedDisk) => void = () => {}) {
    this.disk = new SimulatedDisk(content);
    prepare(this.disk);
    this.journal = new Journal({
      directory: DIRECTORY,
      stream: 0,
      newEpoch: () => 7n,
      onSyncFailure: (error) => this.syncFailures.push(error),
      onRecovered: (episode) => this.episodes.push(episode),
      bootId: 'boot',
      nowMicros: () => 5000,
      files: this.disk,
      timers: this.timers,
      ...options,
    });
  }

  append(...sizes: readonly number[]): void {
    const { journal } = this;
    for (const size of sizes) {
      const sequence = journal.nextSequence;
      journal.append(RECORD_KINDS.decision, 5, new Uint8Array(size).fill(sequence), EMPTY);
    }
  }

  /** A turn; the error of its commit. */
  turn(...sizes: readonly number[]): SetpointError | null {
    this.append(...sizes);
    try {
      this.journal.commit();
      return null;
    } catch (error) {
      if (error instanceof SetpointError) return error;
      throw error;
    }
  }

  get contents(): StreamContents {
    return contentsOf(DIRECTORY, 0, this.disk);
  }

  get mark(): unknown {
    return MarkFile.read(this.disk, markPath(DIRECTORY, 0))?.mark;
  }

  failNext(action: string, code = 'EIO'): void {
    this.disk.fault = (asked, path) => {
      if (asked !== action || path.includes('.mark')) return null;
      this.disk.fault = () => null;
      return systemError(code);
    };
  }
}
