import type { StoreHead } from './writer.ts';

/** The bodies of the store's own entries (kind 5), as JSON in the place of the request frame. */
export type StoreEvent =
  | { readonly event: 'begun'; readonly previous: StoreHead | null }
  | {
      readonly event: 'dropped';
      readonly what: 'telemetry' | 'records';
      readonly fromIndex: number;
      readonly toIndex: number;
      readonly count: number;
      readonly reason: string;
    }
  | {
      readonly event: 'lost';
      /** Null when it cannot be told which streams. */
      readonly stream: number | null;
      /** Sequences of the stream, or entry indices of the log before when `stream` is null. */
      readonly from: number;
      readonly to: number;
      readonly reason: string;
      readonly detail: string;
    };

/** The JSON of an event. The log's number and links are hexadecimal. */
export function encodeEvent(body: StoreEvent): Uint8Array {
  const json = body.event === 'begun' ? { ...body, previous: body.previous === null ? null : headOf(body.previous) } : body;
  return new TextEncoder().encode(JSON.stringify(json));
}

function headOf({ log, index, link }: StoreHead): Record<string, unknown> {
  return { log: log.toString(16).padStart(16, '0'), index, link: Buffer.from(link).toString('hex') };
}
