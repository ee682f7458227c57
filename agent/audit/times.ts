/** Times as people write them and as they are stored: whole microseconds since 1970-01-01 UTC. Pure. */

const MICROS_PER_MILLI = 1000;
const MICROS_PER_DAY = 86_400_000_000;

const DATE = /^(\d{4})-(\d{2})-(\d{2})$/;
const DATE_AND_TIME = /^(\d{4}-\d{2}-\d{2})[T ](\d{2}):(\d{2})(?::(\d{2})(?:[.,](\d{1,6}))?)?(Z|[+-]\d{2}:?\d{2})?$/i;

/** How a time may be given, for messages. */
export const TIME_FORM = 'a date (2026-11-22) or a time (2026-11-22T10:15:00Z, 2026-11-22T19:15:00.250+09:00); UTC without a zone';

/**
 * Reads an ISO 8601 date or time; without a zone it is UTC. As an end, a date stands for its last microsecond, so that
 * `--from 2026-11-22 --to 2026-11-22` is that day. Null when it is no time.
 */
export function parseTime(text: string, isEnd: boolean): number | null {
  const day = dayMicros(text);
  if (day !== null) return isEnd ? day + MICROS_PER_DAY - 1 : day;
  const [, date = '', hours = '', minutes = '', seconds = '0', fraction = '', zone = 'Z'] = DATE_AND_TIME.exec(text) ?? [];
  const start = dayMicros(date);
  const offset = zoneMinutes(zone);
  if (start === null || offset === null || Number(hours) > 23 || Number(minutes) > 59 || Number(seconds) > 59) return null;
  const inDay = (Number(hours) * 60 + Number(minutes) - offset) * 60 + Number(seconds);
  const micros = start + inDay * 1_000_000 + Number(fraction.padEnd(6, '0'));
  return micros >= 0 ? micros : null;
}

/** The start of a calendar day from 1970 on; null for days that do not exist. */
function dayMicros(date: string): number | null {
  const [, year, month, day] = DATE.exec(date) ?? [];
  if (year === undefined || month === undefined || day === undefined) return null;
  const millis = Date.UTC(Number(year), Number(month) - 1, Number(day));
  // Date.UTC() takes 30 February for 2 March, and the years 0 to 99 for 1900 to 1999.
  return new Date(millis).toISOString().startsWith(date) && millis >= 0 ? millis * MICROS_PER_MILLI : null;
}

function zoneMinutes(zone: string): number | null {
  const [, sign, hours, minutes] = /^([+-])(\d{2}):?(\d{2})$/.exec(zone) ?? [];
  if (sign === undefined) return 0;
  if (Number(hours) > 23 || Number(minutes) > 59) return null;
  return (Number(hours) * 60 + Number(minutes)) * (sign === '-' ? -1 : 1);
}

/** 2026-11-22T10:15:00.250000Z. Every number up to 2^53 - 1 (the year 2255) is a time. */
export function formatMicros(micros: number): string {
  const seconds = new Date(Math.floor(micros / 1_000_000) * 1000).toISOString().slice(0, 19);
  return `${seconds}.${String(micros % 1_000_000).padStart(6, '0')}Z`;
}

/** 2026-11-22T10:15:00.250Z; the number itself when it is no time (a frame's field may be up to 8.64e15, which is one). */
export function formatMillis(millis: number): string {
  return new Date(millis).toISOString();
}
