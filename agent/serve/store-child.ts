import { type ChildProcess, spawn } from 'node:child_process';

const OUTPUT_CHARACTERS = 2000;

/** Starts a script of ours in a process of its own, with a channel for messages. */
export function startChild(file: string, ...args: string[]): ChildProcess {
  return spawn(process.execPath, ['--disable-warning=ExperimentalWarning', file, ...args], {
    stdio: ['ignore', 'pipe', 'pipe', 'ipc'],
    // Nothing of the agent's environment (tokens, options that change how Node starts) is the store's business.
    env: { PATH: process.env['PATH'] ?? '' },
  });
}

/** The end of what a process wrote so far. */
export function outputOf(child: ChildProcess): () => string {
  let text = '';
  for (const stream of [child.stdout, child.stderr]) {
    stream?.on('data', (chunk: Buffer) => {
      text = (text + chunk.toString()).slice(-OUTPUT_CHARACTERS);
    });
  }
  return () => text;
}

type Ended = (code: number | null, signal: string | null, error: Error | null) => void;

/** Also for a process that could not be started at all, which has no exit. */
export function whenEnded(child: ChildProcess, ended: Ended): void {
  child.once('close', (code, signal) => ended(code, signal, null));
  child.on('error', (error) => {
    // A message or a signal that did not get through is followed by the exit, if it matters.
    if (child.pid === undefined) ended(null, null, error);
  });
}

export function endText(code: number | null, signal: string | null): string {
  return signal === null ? `code ${code}` : `signal ${signal}`;
}

export function quoted(text: string): string {
  return text.trim() === '' ? '' : `: ${text.trim()}`;
}
