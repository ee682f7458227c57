import { DATATYPES, isDatatype, type Datatype, type WireTensor } from './datatype.ts';
import { listAt, nameAt, tupleAt, wrongField } from './fields.ts';
import { MAX_DIMENSIONS, MAX_TENSORS } from './limits.ts';
import { isUtf8 } from './scan.ts';

/** Largest dimension: what fits a signed 32-bit index. Non-empty tensors are bounded by the frame long before. */
const MAX_DIMENSION = 0x7fff_ffff;

/** Named tensors of a frame; `bytes` stay views into it. `field` is where they are, for messages. */
export function tensorsAt(value: unknown, field: string): WireTensor[] {
  const list = listAt(value, field, MAX_TENSORS);
  const tensors: WireTensor[] = [];
  for (let index = 0; index < list.length; index += 1) {
    const tensor = tensorAt(list[index], `${field}[${index}]`);
    for (const other of tensors) {
      if (other.name === tensor.name) throw wrongField(`${field}[${index}].name`, tensor.name, 'a name used once');
    }
    tensors.push(tensor);
  }
  return tensors;
}

function tensorAt(value: unknown, field: string): WireTensor {
  const fields = tupleAt(value, field, 4);
  const name = nameAt(fields[0], `${field}.name`);
  const datatype = fields[1];
  if (!isDatatype(datatype)) throw wrongField(`${field}.datatype`, datatype, `one of ${Object.keys(DATATYPES).join(', ')}`);
  const shape = shapeAt(fields[2], `${field}.shape`);
  const bytes = fields[3];
  if (!(bytes instanceof Uint8Array)) throw wrongField(`${field}.bytes`, bytes, 'binary');
  checkContents(datatype, shape, bytes, field);
  return { name, datatype, shape, bytes };
}

function shapeAt(value: unknown, field: string): number[] {
  const list = listAt(value, field, MAX_DIMENSIONS);
  for (const dimension of list) {
    if (!Number.isInteger(dimension) || (dimension as number) < 0 || (dimension as number) > MAX_DIMENSION) {
      throw wrongField(field, dimension, `dimensions of 0 .. ${MAX_DIMENSION}`);
    }
  }
  return list.map((dimension) => (dimension as number) + 0);
}

function checkContents(datatype: Datatype, shape: readonly number[], bytes: Uint8Array, field: string): void {
  let elements = 1;
  for (const dimension of shape) elements *= dimension;
  if (datatype === 'BYTES') {
    checkElements(bytes, elements, field);
    return;
  }
  const wanted = elements * DATATYPES[datatype].bytes;
  if (bytes.length !== wanted) {
    throw wrongField(`${field}.bytes`, bytes, `exactly ${wanted} bytes for ${datatype} [${shape.join(', ')}]`);
  }
  if (datatype === 'BOOL' && bytes.some((byte) => byte > 1)) throw wrongField(`${field}.bytes`, 'a byte above 1', '0 or 1 for each BOOL');
}

/** BYTES: every element a little-endian uint32 length and that many bytes of UTF-8, and as many of them as the shape says. */
function checkElements(bytes: Uint8Array, elements: number, field: string): void {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  let at = 0;
  let found = 0;
  while (at < bytes.length) {
    const start = at + 4;
    const end = start > bytes.length ? Infinity : start + view.getUint32(at, true);
    if (end > bytes.length) throw wrongField(`${field}.bytes`, `element ${found} beyond the end`, 'a length that fits');
    if (!isUtf8(bytes, start, end)) throw wrongField(`${field}.bytes`, `element ${found} not UTF-8`, 'UTF-8');
    at = end;
    found += 1;
  }
  if (found !== elements) throw wrongField(`${field}.bytes`, `${found} elements`, `${elements} elements, as the shape says,`);
}
