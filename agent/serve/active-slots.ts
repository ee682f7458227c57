import { existsSync, readFileSync } from 'node:fs';
import { z } from 'zod';
import { messageOf, SetpointError } from '../../protocol/errors.ts';
import { replaceFile } from '../bundles/disk.ts';

const slotsSchema = z.record(z.string().max(255), z.string().regex(/^[0-9a-f]{64}$/));
const schema = z.strictObject({ format: z.literal('setpoint.slots.v1'), slots: slotsSchema });

/** Which bundle each slot answered from last: what an agent serves when the configured path gives it nothing. */
export class ActiveSlots {
  readonly #path: string;
  #slots: Record<string, string> = {};
  #isNew = true;

  constructor(path: string) {
    this.#path = path;
  }

  /** @throws SetpointError when the file is there and cannot be read */
  load(): void {
    if (!existsSync(this.#path)) return;
    this.#isNew = false;
    try {
      this.#slots = schema.parse(JSON.parse(readFileSync(this.#path, 'utf8'))).slots;
    } catch (cause) {
      throw new SetpointError('internal', `Cannot read ${this.#path}: ${messageOf(cause)}`, {
        remedy: 'remove the file: slots then start from their configured bundles',
        cause,
      });
    }
  }

  /** There is no file: adopt() takes what was kept elsewhere. */
  get isNew(): boolean {
    return this.#isNew;
  }

  get all(): Readonly<Record<string, string>> {
    return this.#slots;
  }

  /** Takes a copy of `all`; one that is not readable changes nothing: slots then start from their configured bundles. */
  adopt(copy: unknown): void {
    const parsed = slotsSchema.safeParse(copy);
    if (parsed.success) this.#slots = { ...parsed.data, ...this.#slots };
  }

  get(slot: string): string | undefined {
    return this.#slots[slot];
  }

  set(slot: string, bundleId: string): void {
    if (this.#slots[slot] === bundleId) return;
    this.#slots[slot] = bundleId;
    replaceFile(this.#path, new TextEncoder().encode(`${JSON.stringify({ format: 'setpoint.slots.v1', slots: this.#slots }, null, 1)}\n`));
  }
}
