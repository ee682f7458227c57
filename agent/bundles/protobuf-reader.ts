import { SetpointError } from '../../protocol/errors.ts';

/**
 * A strict pull reader of the protobuf wire format, for files from outside: it never copies, never recurses by itself, and
 * every defect is an `invalid_bundle` error with the byte offset and the path of the message it was found in. Pure.
 *
 * Stricter than protobuf asks: groups are refused (ONNX has none), and a known field of another wire type is an error and
 * not an unknown field, so that this reader and the engine's cannot see two different models in the same bytes.
 */
const WIRE = { varint: 0, fixed64: 1, bytes: 2, fixed32: 5 } as const;

/**
 * Most fields read from one file. proto2 writes each number of a tree ensemble as a field of its own, about 9 for a tree node:
 * 64 million fields are 7 million tree nodes, and take this reader 1.6 s.
 */
const MAX_FIELDS = 64_000_000;

/** Shared by all readers of one file, so that nesting does not multiply the limit. */
export interface FieldBudget {
  fieldsLeft: number;
}

const utf8 = new TextDecoder('utf-8', { fatal: true });

export class ProtobufReader {
  /** Number and wire type of the field that next() found. */
  field = 0;
  wire = 0;
  readonly #bytes: Uint8Array;
  readonly #path: string;
  readonly #budget: FieldBudget;
  readonly #end: number;
  #at: number;

  /** @param path what is being read, as messages name it: `model`, `model.graph.node` */
  constructor(bytes: Uint8Array, path: string, budget: FieldBudget = { fieldsLeft: MAX_FIELDS }, start = 0, end = bytes.byteLength) {
    this.#bytes = bytes;
    this.#path = path;
    this.#budget = budget;
    this.#at = start;
    this.#end = end;
  }

  /** Moves to the next field; false at the end of the message. The caller reads or skips the field it found. */
  next(): boolean {
    if (this.#at >= this.#end) return false;
    this.#budget.fieldsLeft -= 1;
    if (this.#budget.fieldsLeft < 0) this.fail(`it has more than ${MAX_FIELDS} fields`);
    const tag = this.#varint32('a field tag');
    this.field = tag >>> 3;
    this.wire = tag & 7;
    if (this.field === 0) this.fail('field number 0 is not allowed');
    return true;
  }

  skip(): void {
    if (this.wire === WIRE.varint) this.#skipVarint();
    else if (this.wire === WIRE.fixed64) this.#advance(8);
    else if (this.wire === WIRE.bytes) this.#advance(this.#length());
    else if (this.wire === WIRE.fixed32) this.#advance(4);
    else this.fail(`field ${this.field} has wire type ${this.wire}; 0, 1, 2 and 5 are allowed`);
  }

  /** The bytes of a length-delimited field, as a view. */
  bytes(): Uint8Array {
    this.#expect(WIRE.bytes);
    const length = this.#length();
    const start = this.#advance(length);
    return this.#bytes.subarray(start, start + length);
  }

  text(maxBytes: number): string {
    const bytes = this.bytes();
    if (bytes.byteLength > maxBytes) this.fail(`field ${this.field} is a text of ${bytes.byteLength} bytes, ${maxBytes} are allowed`);
    try {
      return utf8.decode(bytes);
    } catch {
      return this.fail(`field ${this.field} is not UTF-8 text`);
    }
  }

  /** A reader of the message in this field. */
  message(name: string): ProtobufReader {
    this.#expect(WIRE.bytes);
    const length = this.#length();
    const start = this.#advance(length);
    return new ProtobufReader(this.#bytes, `${this.#path}.${name}`, this.#budget, start, start + length);
  }

  /** A signed 64-bit varint. */
  int64(): bigint {
    this.#expect(WIRE.varint);
    return this.#int64();
  }

  /** As int64(), for counts and codes; a value beyond 2^53 is an error. */
  integer(): number {
    const value = Number(this.int64());
    if (!Number.isSafeInteger(value)) this.fail(`field ${this.field} is ${value}, which is out of range`);
    return value;
  }

  /** Calls `visit` for each number of a repeated integer field, packed or not. */
  int64s(visit: (value: bigint) => void): void {
    if (this.wire !== WIRE.bytes) {
      visit(this.int64());
      return;
    }
    const packed = this.message(`field ${this.field}`);
    while (packed.#at < packed.#end) visit(packed.#int64());
  }

  /** The bytes of one repeated fixed-width value, or of all of them when packed. */
  fixedWidth(width: 4 | 8): Uint8Array {
    if (this.wire === WIRE.bytes) {
      const packed = this.bytes();
      if (packed.byteLength % width !== 0) this.fail(`field ${this.field} has ${packed.byteLength} bytes, not a multiple of ${width}`);
      return packed;
    }
    this.#expect(width === 4 ? WIRE.fixed32 : WIRE.fixed64);
    const start = this.#advance(width);
    return this.#bytes.subarray(start, start + width);
  }

  fail(why: string): never {
    throw new SetpointError('invalid_bundle', `Cannot read the ONNX file: ${this.#path} at byte ${this.#at}: ${why}`, {
      field: this.#path,
      remedy: 'export the model again; the file is damaged or is not ONNX',
    });
  }

  #expect(wire: number): void {
    if (this.wire !== wire) this.fail(`field ${this.field} has wire type ${this.wire}, ${wire} is allowed`);
  }

  #advance(length: number): number {
    const start = this.#at;
    if (length > this.#end - start) {
      this.fail(`field ${this.field} has ${length} bytes, only ${this.#end - start} are left`);
    }
    this.#at = start + length;
    return start;
  }

  #length(): number {
    return this.#varint32('a length');
  }

  /** A tag or a length: at most 2^31 - 1, as protobuf allows no larger message. */
  #varint32(what: string): number {
    let value = 0;
    for (let shift = 0; shift < 35; shift += 7) {
      const byte = this.#byte(what);
      value += (byte & 0x7f) * 2 ** shift;
      if (byte < 0x80) return value < 2 ** 31 || what === 'a field tag' ? value : this.fail(`${what} is ${value}, which is out of range`);
    }
    return this.fail(`${what} is longer than 5 bytes`);
  }

  #int64(): bigint {
    let low = 0;
    let high = 0n;
    for (let index = 0; index < 10; index += 1) {
      const byte = this.#byte('a number');
      if (index < 7) low += (byte & 0x7f) * 2 ** (7 * index);
      else high |= BigInt(byte & 0x7f) << BigInt(7 * index);
      if (byte < 0x80) return BigInt.asIntN(64, BigInt(low) | high);
    }
    return this.fail('a number is longer than 10 bytes');
  }

  #skipVarint(): void {
    for (let index = 0; index < 10; index += 1) if (this.#byte('a number') < 0x80) return;
    this.fail('a number is longer than 10 bytes');
  }

  #byte(what: string): number {
    if (this.#at >= this.#end) this.fail(`${what} is cut short`);
    const byte = this.#bytes[this.#at] ?? 0;
    this.#at += 1;
    return byte;
  }
}
