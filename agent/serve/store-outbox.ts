import type { ChildProcess } from 'node:child_process';
import type { ToStore } from '../store/messages.ts';

/**
 * Messages for the store process. Each kind replaces the one before (a snapshot, a state by its name), and one at a time
 * is on its way: a process that does not read costs the agent a message of each kind, not a growing queue.
 */
export class StoreOutbox {
  /** The newest of each kind, kept for the next process. */
  readonly #newest = new Map<string, ToStore>();
  readonly #unsent = new Set<string>();
  #child: ChildProcess | null = null;
  #isSending = false;

  put(message: Exclude<ToStore, { type: 'stop' }>): void {
    const key = message.type === 'state' ? `state ${message.name}` : message.type;
    // Deleted first: the order of the last calls is the order of sending, and a snapshot must not overtake its estimators.
    this.#newest.delete(key);
    this.#newest.set(key, message);
    this.#unsent.delete(key);
    this.#unsent.add(key);
    this.#send();
  }

  /** A process that has opened the store: it is told everything. */
  attach(child: ChildProcess): void {
    this.#child = child;
    this.#isSending = false;
    for (const key of this.#newest.keys()) this.#unsent.add(key);
    this.#send();
  }

  detach(): void {
    this.#child = null;
  }

  /** Sends all that is left, then the order to stop, in this order. */
  stop(order: ToStore, child: ChildProcess): void {
    const left = [...this.#unsent].map((key) => this.#newest.get(key));
    this.#unsent.clear();
    this.#child = null;
    for (const message of [...left, order]) if (message !== undefined && child.connected) child.send(message, ignoreFailure);
  }

  #send(): void {
    const child = this.#child;
    if (child === null || this.#isSending || !child.connected) return;
    for (const key of this.#unsent) {
      const message = this.#newest.get(key);
      this.#unsent.delete(key);
      if (message === undefined) continue;
      this.#isSending = true;
      child.send(message, () => {
        // A failure is followed by the end of the process, and the next one is told everything.
        if (this.#child !== child) return;
        this.#isSending = false;
        this.#send();
      });
      return;
    }
  }
}

/** The channel broke because the process ended: the supervisor sees that for itself. */
function ignoreFailure(): void {}
