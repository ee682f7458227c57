import { renderLine, renderView, type ViewSnapshot } from './view.ts';

const REDRAW_MILLIS = 250;
const LINE_MILLIS = 2000;
const HOME_AND_HIDE = '\u001B[?25l\u001B[H';
const CLEAR_LINE_END = '\u001B[K';
const CLEAR_BELOW = '\u001B[J';
const CLEAR_ALL = '\u001B[2J';
const SHOW = '\u001B[?25h';
const BOLD = '\u001B[1m';
const PLAIN = '\u001B[22m';

/** Shows snapshots on a terminal: redrawn in place where there is one, otherwise one line every 2 s. */
export class Terminal {
  readonly #output: NodeJS.WriteStream;
  readonly #isBold: boolean;
  readonly #timer: NodeJS.Timeout;

  /** @param noColor the NO_COLOR variable: any text but the empty one turns colour off (no-color.org) */
  constructor(output: NodeJS.WriteStream, snapshot: () => ViewSnapshot, noColor: string | undefined) {
    this.#output = output;
    this.#isBold = noColor === undefined || noColor === '';
    if (output.isTTY) output.write(CLEAR_ALL);
    this.#timer = setInterval(() => this.#draw(snapshot()), output.isTTY ? REDRAW_MILLIS : LINE_MILLIS);
  }

  #draw(snapshot: ViewSnapshot): void {
    if (!this.#output.isTTY) {
      this.#output.write(`${renderLine(snapshot)}\n`);
      return;
    }
    const rows = renderView(snapshot, this.#output.columns || 120).split('\n');
    if (this.#isBold) for (const at of [0, 2]) rows[at] = `${BOLD}${rows[at] ?? ''}${PLAIN}`;
    this.#output.write(`${HOME_AND_HIDE}${rows.join(`${CLEAR_LINE_END}\n`)}${CLEAR_LINE_END}${CLEAR_BELOW}`);
  }

  stop(): void {
    clearInterval(this.#timer);
    if (this.#output.isTTY) this.#output.write(`${SHOW}\n`);
  }
}
