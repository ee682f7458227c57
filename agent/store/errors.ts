import { SetpointError } from '../../protocol/errors.ts';

/** What was read from the store is not what was written. Names the place, as far as it is known. */
export class StoreDamagedError extends SetpointError {
  readonly index: number | null;
  readonly stream: number | null;
  readonly sequence: number | null;

  constructor(message: string, place: { index?: number; stream?: number; sequence?: number; cause?: unknown } = {}) {
    super('journal_failed', message, {
      remedy: 'keep the store folder for analysis; the store process sets a damaged store aside and goes on with a new one',
      ...(place.cause === undefined ? {} : { cause: place.cause }),
    });
    this.index = place.index ?? null;
    this.stream = place.stream ?? null;
    this.sequence = place.sequence ?? null;
  }
}

/** A commit failed: the environment is not to be used again, and this process must exit. */
export class StoreFailedError extends SetpointError {
  constructor(message: string, cause: unknown) {
    super('journal_failed', message, { remedy: 'end this process and open the store in a new one; check the free disk space', cause });
  }
}

/** A record contradicts what the store already holds under its number. Nothing was written; the writer can go on. */
export class StoreConflictError extends SetpointError {
  readonly stream: number;
  readonly sequence: number;

  constructor(message: string, stream: number, sequence: number) {
    super('journal_failed', message, { remedy: 'set the journal segment aside; the agent must never give a number twice' });
    this.stream = stream;
    this.sequence = sequence;
  }
}
