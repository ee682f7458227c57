/**
 * Where the elements of a frame are, without building any value. For frames that scanFrame has passed once; on other
 * bytes the answers mean nothing, but nothing is read outside them and every call ends.
 */

/** Elements of the array that starts at `at`, -1 when none does. */
export function arrayLength(bytes: Uint8Array, at: number): number {
  const first = bytes[at];
  if (first === undefined) return -1;
  if ((first & 0xf0) === 0x90) return first & 0x0f;
  if (first === 0xdc && at + 3 <= bytes.length) return sizeAt(bytes, at + 1, 2);
  if (first === 0xdd && at + 5 <= bytes.length) return sizeAt(bytes, at + 1, 4);
  return -1;
}

/** Where the first element of the array at `at` starts. */
function firstElement(bytes: Uint8Array, at: number): number {
  const first = bytes[at];
  return at + (first === 0xdc ? 3 : first === 0xdd ? 5 : 1);
}

/** The position behind the value at `at`, whatever it holds; -1 when the bytes end before. */
export function elementEnd(bytes: Uint8Array, at: number): number {
  let next = at;
  for (let left = 1; left > 0; left -= 1) {
    if (next >= bytes.length) return -1;
    const length = arrayLength(bytes, next);
    if (length >= 0) {
      left += length;
      next = firstElement(bytes, next);
    } else {
      next = scalarEnd(bytes, next, bytes[next] as number);
    }
    if (next > bytes.length) return -1;
  }
  return next;
}

/** Where element `wanted` (0 is the first) of the frame starts, -1 when it has none. */
export function elementStart(bytes: Uint8Array, wanted: number): number {
  if (wanted >= arrayLength(bytes, 0)) return -1;
  let at = firstElement(bytes, 0);
  for (let element = 0; element < wanted && at >= 0; element += 1) at = elementEnd(bytes, at);
  return at;
}

/** The bytes of the text or binary at `at`, without its header; null when there is another value. */
export function contentAt(bytes: Uint8Array, at: number): Uint8Array | null {
  const first = bytes[at];
  if (first === undefined) return null;
  const sizeBytes = SIZE_BYTES[first] as number;
  const isShortText = (first & 0xe0) === 0xa0;
  if (!isShortText && sizeBytes === 0) return null;
  const end = scalarEnd(bytes, at, first);
  return end > bytes.length ? null : bytes.subarray(at + 1 + sizeBytes, end);
}

/** Bytes of the length field behind a first byte: binaries and longer texts have one. */
const SIZE_BYTES = new Uint8Array(256);
for (const first of [0xc4, 0xd9]) SIZE_BYTES.set([1, 2, 4], first);

/** Bytes of a number of a fixed size behind its first byte. */
const NUMBER_BYTES = new Uint8Array(256);
NUMBER_BYTES.set([4, 8, 1, 2, 4, 8, 1, 2, 4, 8], 0xca);

/** The end of a value that is no array; beyond the bytes when they end before. */
function scalarEnd(bytes: Uint8Array, at: number, first: number): number {
  if ((first & 0xe0) === 0xa0) return at + 1 + (first & 0x1f);
  const sizeBytes = SIZE_BYTES[first] as number;
  if (sizeBytes === 0) return at + 1 + (NUMBER_BYTES[first] as number);
  const contentStart = at + 1 + sizeBytes;
  return contentStart > bytes.length ? contentStart : contentStart + sizeAt(bytes, at + 1, sizeBytes);
}

function sizeAt(bytes: Uint8Array, at: number, count: number): number {
  let size = 0;
  for (let byte = 0; byte < count; byte += 1) size = size * 256 + (bytes[at + byte] as number);
  return size;
}
