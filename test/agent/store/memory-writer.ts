import type { StoreEvent } from '../../../agent/store/events.ts';
import type { DrainPosition, DropLimit, RecordToStore, StoreHead, StoreUsage } from '../../../agent/store/writer.ts';

/** Stands in for the store: remembers what it was given, and outlives the drains of a test as the file does. */
export class MemoryWriter {
  readonly stored = new Map<number, number[]>();
  readonly events: StoreEvent[] = [];
  readonly positions = new Map<number, DrainPosition>();
  refuse: Error | null = null;
  /** Called before each commit. */
  beforeCommit: () => void = () => {};

  position(stream: number): DrainPosition | null {
    return this.positions.get(stream) ?? null;
  }

  append(records: readonly RecordToStore[], position: DrainPosition): Promise<number> {
    if (this.refuse !== null && records.length > 0) return Promise.reject(this.refuse);
    this.beforeCommit();
    const known = this.stored.get(position.stream) ?? [];
    this.stored.set(position.stream, [...known, ...records.map(({ sequence }) => sequence)]);
    this.positions.set(position.stream, position);
    return Promise.resolve(records.length);
  }

  appendEvent(event: StoreEvent): Promise<void> {
    this.events.push(event);
    return Promise.resolve();
  }

  /** What the store is said to hold; dropping takes from it. */
  held: StoreUsage = {
    entries: 10,
    firstIndex: 1,
    telemetryFirstIndex: 1,
    oldestTelemetryMicros: null,
    oldestMicros: null,
    usedBytes: 0,
    fileBytes: 0,
  };
  readonly states = new Map<string, unknown>();
  readonly drops: string[] = [];
  readonly checkpoints: number[] = [];

  get head(): StoreHead {
    let index = this.events.length;
    for (const { length } of this.stored.values()) index += length;
    return { log: 1n, index, link: new Uint8Array(32) };
  }

  usage(): StoreUsage {
    return this.held;
  }

  dropTelemetry(limit: DropLimit, reason: string): Promise<number> {
    this.drops.push(`telemetry ${reason} ${limit.maxRecords}`);
    this.held = { ...this.held, oldestTelemetryMicros: null };
    return Promise.resolve(1);
  }

  dropRecords(limit: DropLimit, reason: string): Promise<number> {
    this.drops.push(`records ${reason} ${limit.maxRecords}`);
    this.held = { ...this.held, usedBytes: this.held.usedBytes - 100 };
    return Promise.resolve(100);
  }

  putState(name: string, json: unknown): Promise<void> {
    this.states.set(name, json);
    return Promise.resolve();
  }

  getState(name: string): unknown {
    return this.states.get(name);
  }

  putCheckpoint(index: number): Promise<void> {
    this.checkpoints.push(index);
    return Promise.resolve();
  }

  close(): Promise<void> {
    return Promise.resolve();
  }
}
