import { DATATYPES, type Datatype } from '../../protocol/datatype.ts';
import { invalidField } from './replies.ts';
import { elementCount } from './shapes.ts';

const decoder = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });

/**
 * Checks a tensor's raw bytes against its datatype and shape: the exact size, BOOL only 0 and 1, BYTES elements that fill the
 * tensor exactly and are UTF-8.
 * @param field how the sender would name the tensor, for example `inputs[0]`
 * @throws SetpointError invalid_field
 */
export function checkBinary(bytes: Uint8Array, datatype: Datatype, shape: readonly number[], field: string): void {
  const count = elementCount(shape);
  if (datatype === 'BYTES') {
    checkStrings(bytes, count, field);
    return;
  }
  const size = count * DATATYPES[datatype].bytes;
  if (bytes.byteLength !== size) {
    throw invalidField(
      field,
      `Cannot read the binary data of ${field}: ${datatype} [${shape.join(',')}] has another size: value found is ${bytes.byteLength} bytes, ${size} are allowed`,
    );
  }
  if (datatype === 'BOOL') {
    const wrong = bytes.findIndex((byte) => byte > 1);
    if (wrong >= 0) {
      throw invalidField(
        field,
        `Cannot read the binary data of ${field}: element ${wrong}: value found is ${bytes[wrong]}, 0 or 1 is allowed`,
      );
    }
  }
}

function checkStrings(bytes: Uint8Array, count: number, field: string): void {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  let offset = 0;
  let elements = 0;
  while (offset < bytes.byteLength && elements < count) {
    const start = offset + 4;
    const end = start <= bytes.byteLength ? start + view.getUint32(offset, true) : Infinity;
    if (end > bytes.byteLength) {
      throw invalidField(
        field,
        `Cannot read the binary data of ${field}: element ${elements} ends outside it: value found is ${bytes.byteLength - offset} bytes left, a uint32 length and that many bytes are allowed`,
      );
    }
    if (!isUtf8(bytes.subarray(start, end))) {
      throw invalidField(field, `Cannot read the binary data of ${field}: element ${elements} is not UTF-8, only UTF-8 is allowed`);
    }
    offset = end;
    elements++;
  }
  if (elements !== count || offset !== bytes.byteLength) {
    throw invalidField(
      field,
      `Cannot read the binary data of ${field}: its elements do not fill it: value found is ${elements} elements in ${offset} of ${bytes.byteLength} bytes, ${count} elements are allowed`,
    );
  }
}

function isUtf8(bytes: Uint8Array): boolean {
  try {
    decoder.decode(bytes);
    return true;
  } catch {
    return false;
  }
}
