/** One line an event on stderr: time, level, event, then key=value pairs (logfmt), readable by people and by collectors. */
type Level = 'info' | 'warn' | 'error';

export interface Log {
  (level: Level, event: string, fields?: Readonly<Record<string, string | number | boolean | null>>): void;
}

/** @param write takes the finished line */
export function createLog(write: (line: string) => void, now: () => Date): Log {
  return (level, event, fields = {}) => write(`${formatLine(now(), level, event, fields)}\n`);
}

export function formatLine(
  time: Date,
  level: Level,
  event: string,
  fields: Readonly<Record<string, string | number | boolean | null>>,
): string {
  const pairs = Object.entries(fields).map(([key, value]) => ` ${key}=${quoted(String(value ?? '-'))}`);
  return `${time.toISOString()} ${level.padEnd(5)} ${event}${pairs.join('')}`;
}

/**
 * A value that is plain stands as it is, any other as JSON. Control characters are always escaped: what a peer sent must
 * neither start a line of its own nor steer the terminal that shows it.
 */
function quoted(value: string): string {
  if (/^[^\s"=\p{Cc}]+$/u.test(value)) return value;
  return JSON.stringify(value).replaceAll(/\p{Cc}|[\u2028\u2029]/gu, (one) => `\\u${one.charCodeAt(0).toString(16).padStart(4, '0')}`);
}
