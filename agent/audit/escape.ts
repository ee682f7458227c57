/**
 * Texts from controllers on their way to a terminal, a spreadsheet or a line of JSON. A controller chooses them: they may
 * hold escape sequences of a terminal, marks that turn the direction of text, and formulas. Pure.
 */

/** Control and format characters (marks of direction, invisible joiners), line separators, and lone surrogates. */
const HOSTILE = /[\p{Cc}\p{Cf}\p{Cs}\u2028\u2029]/gu;

/** What spreadsheets take for the start of a formula, also in the wide forms that some of them convert, and our own guard. */
const FORMULA = /^\s*[=+\-@'\uff1d\uff0b\uff0d\uff20]/u;

/** Each UTF-16 unit by itself, as JSON does. */
function escaped(character: string): string {
  let text = '';
  for (let at = 0; at < character.length; at++) text += `\\u${character.charCodeAt(at).toString(16).padStart(4, '0')}`;
  return text;
}

/**
 * The text with every hostile character as \uXXXX. A backslash that is followed by u becomes \u005c, so that turning every
 * \uXXXX back gives the text as it was; all other backslashes stay.
 */
export function visible(text: string): string {
  return text.replaceAll(/\\(?=u)/g, '\\u005c').replaceAll(HOSTILE, escaped);
}

/** One line of JSON that is safe on a terminal, too, and the same value to every reader: hostile characters stand in strings only. */
export function jsonLine(value: unknown): string {
  return `${JSON.stringify(value).replaceAll(HOSTILE, escaped)}\n`;
}

/**
 * A text as a field of a CSV file (RFC 4180). What a spreadsheet could take for a formula gets a ' before it, and so does a
 * text that begins with one, so that taking one leading ' away gives the text as it was. Null is an empty field, an empty
 * text "".
 */
export function csvText(text: string | null): string {
  if (text === null) return '';
  const safe = visible(text);
  const guarded = FORMULA.test(safe) ? `'${safe}` : safe;
  return guarded === '' || /[",;]|^\s|\s$/.test(guarded) ? `"${guarded.replaceAll('"', '""')}"` : guarded;
}

/** A number of ours needs no guard: it stays a number to the reader, NaN and Infinity as these words. */
export function csvNumber(value: number | null): string {
  return value === null ? '' : String(value);
}
