/** One line an event on stderr: time, level, event, then key=value pairs (logfmt), readable by people and by collectors. */
export type Level = 'info' | 'warn' | 'error';

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

function quoted(value: string): string {
  return /^[^\s"=]+$/.test(value) ? value : JSON.stringify(value);
}
