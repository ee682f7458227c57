/** How a store process ended, as far as it matters to what comes next. */
export interface StoreEnding {
  readonly code: number | null;
  readonly signal: string | null;
  /** It committed something. */
  readonly hasProgressed: boolean;
  /** How long it ran after it had opened the store, milliseconds; 0 when it never had. */
  readonly readyMillis: number;
}

export type CheckVerdict = 'sound' | 'damaged' | 'undecided';

export interface NextStart {
  readonly action: 'start' | 'check' | 'set_aside';
  readonly delayMillis: number;
}

export interface RestartLimits {
  readonly firstMillis: number;
  readonly maxMillis: number;
  /** A process that ran this long was well: the next wait is the first again. */
  readonly healthyMillis: number;
}

/** A store that killed this many processes in a row, and took nothing between, is set aside even when the check finds nothing. */
const MAX_SUSPICIOUS = 3;

/**
 * What LMDB does to its process when its file is damaged (reproduced: truncation SIGBUS, lost pages SIGABRT or SIGSEGV),
 * and the code with which the process itself says so. SIGKILL says nothing about the store: people, the supervisor and
 * the kernel's memory killer send it.
 */
const SUSPICIOUS_SIGNALS: readonly string[] = ['SIGBUS', 'SIGSEGV', 'SIGABRT', 'SIGILL', 'SIGFPE', 'SIGTRAP'];

/** Decides what follows the end of a store process: pure, so that every sequence of deaths can be tested. */
export class StoreRestarts {
  readonly #limits: RestartLimits;
  readonly #damagedCode: number;
  #delayMillis: number;
  #suspicious = 0;
  #failures = 0;

  constructor(limits: RestartLimits, damagedCode: number) {
    this.#limits = limits;
    this.#damagedCode = damagedCode;
    this.#delayMillis = limits.firstMillis;
  }

  /** Ends in a row without progress. */
  get failures(): number {
    return this.#failures;
  }

  ended(ending: StoreEnding): NextStart {
    if (ending.hasProgressed) {
      this.#suspicious = 0;
      this.#failures = 0;
    }
    this.#failures += 1;
    if (ending.readyMillis >= this.#limits.healthyMillis) this.#delayMillis = this.#limits.firstMillis;
    const delayMillis = this.#delayMillis;
    this.#delayMillis = Math.min(delayMillis * 2, this.#limits.maxMillis);
    if (!this.#isSuspicious(ending)) return { action: 'start', delayMillis };
    this.#suspicious += 1;
    return { action: this.#suspicious >= MAX_SUSPICIOUS ? 'set_aside' : 'check', delayMillis };
  }

  /** A check that came to no verdict counts for the store: it is never set aside for want of time or memory. */
  checked(verdict: CheckVerdict): 'start' | 'set_aside' {
    return verdict === 'damaged' ? 'set_aside' : 'start';
  }

  /** Another store stands there now: nothing is held against it. */
  setAside(): void {
    this.#suspicious = 0;
    this.#delayMillis = this.#limits.firstMillis;
  }

  #isSuspicious({ code, signal }: StoreEnding): boolean {
    return code === this.#damagedCode || (signal !== null && SUSPICIOUS_SIGNALS.includes(signal));
  }
}

/** What the end of the check says: 0 sound, 3 damaged; a damaged file may also kill the check, as it kills any reader. */
export function checkVerdict(code: number | null, signal: string | null, damagedCode: number): CheckVerdict {
  if (code === 0) return 'sound';
  if (code === damagedCode || (signal !== null && SUSPICIOUS_SIGNALS.includes(signal))) return 'damaged';
  return 'undecided';
}
