import type { Context } from '../../protocol/frames.ts';

/**
 * The key under which a control thread keeps its estimator: the slot and the named context fields, for example
 * `14:cd/etch1/prod-a|equipmentId=5:ETCH1|moduleId=-`. Every value carries its length, so no value can imitate a separator;
 * null is `-`, the empty string `0:`. Field names are part of the key: a bundle that threads by other fields starts anew
 * instead of reading another meaning into an old estimate. At most 255 + 13 x 255 characters plus about 200.
 *
 * @param context null when the request has none; every field is then null
 */
export function controlThreadKey(slot: string, context: Context | null, fields: readonly (keyof Context)[]): string {
  let key = `${slot.length}:${slot}`;
  for (const field of fields) {
    const value = context === null ? null : context[field];
    if (value === null) {
      key += `|${field}=-`;
    } else {
      const text = String(value);
      key += `|${field}=${text.length}:${text}`;
    }
  }
  return key;
}
