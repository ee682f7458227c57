/** What the store process is started with, as one JSON argument. No secrets: the command line of a process is for everyone to read. */
export interface StoreSettings {
  readonly agentId: string;
  /** The agent's data directory; the store is the folder `store` in it. */
  readonly dataDirectory: string;
  /** Most bytes of database pages in use. The file may be larger by the pages that dropped entries left free. */
  readonly maxBytes: number;
  /** Features and outputs older than this are dropped; null keeps them as long as there is room. */
  readonly telemetryMaxAgeMillis: number | null;
  /** Whole records older than this are dropped; null, the usual value, keeps them for ever. */
  readonly auditMaxAgeMillis: number | null;
  /** When the cap is reached and no telemetry is left: keep everything and stop taking, or drop the oldest records. */
  readonly onFull: 'hold' | 'drop_oldest';
  /** Free bytes of the file system below which nothing is written: LMDB does not survive a full disk. */
  readonly minFreeBytes: number;
  /** Size of a file that is given up when space runs out, so that the journals can go on. 0: none. */
  readonly ballastBytes: number;
  /** A process that says nothing for this long, or a commit that takes it, is ended with SIGKILL. */
  readonly hangMillis: number;
  /** How often a signed checkpoint is made while entries arrive. */
  readonly checkpointIntervalMillis: number;
}

const MEBIBYTE = 1024 * 1024;

/** Values for everything that a site need not choose. */
export const STORE_DEFAULTS = {
  maxBytes: 20 * 1024 * MEBIBYTE,
  telemetryMaxAgeMillis: null,
  auditMaxAgeMillis: null,
  onFull: 'hold',
  minFreeBytes: 64 * MEBIBYTE,
  ballastBytes: 64 * MEBIBYTE,
  hangMillis: 30_000,
  checkpointIntervalMillis: 60_000,
} as const satisfies Omit<StoreSettings, 'agentId' | 'dataDirectory'>;
