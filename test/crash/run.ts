import { existsSync, mkdirSync, readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { stringify } from 'yaml';
import { freePort } from '../../bench/fab/agent-process.ts';
import { Random } from '../../bench/fab/random.ts';
import { writeSumBundle } from '../support/models.ts';
import { type Chain, verifyChain } from './chain.ts';
import { Controllers } from './controllers.ts';
import { type Evidence, examine } from './evidence.ts';
import { isSound } from './judge.ts';
import { type Answer, Ledger } from './ledger.ts';
import { type MutantName, writeMutant } from './mutant.ts';
import { type Kill, KILLS } from './options.ts';
import { BIAS, RequestIds, SLOT } from './requests.ts';
import { isStoreOf, signalProcess, Victim } from './victim.ts';

const ROOT = resolve(import.meta.dirname, '../..');

/** Under load this long at most before the kill, milliseconds; at random, so that every moment of a turn and a commit is met. */
const LOAD_MILLIS = 400;
/** A store process is killed this long at most after it was started, so while it opens; or after its first commit, so while it drains. */
const STORE_MILLIS = 250;
/** In so many of the rounds the agent is killed while it starts. */
const EARLY_SHARE = 1 / 8;
const EARLY_MILLIS = 1500;
/** In so many of the rounds that kill the agent alone, its store process stands still until the next agent is starting. */
const LINGERING_SHARE = 1 / 4;
const LINGERING_MILLIS = 1500;
/** The supervisor doubles its wait with each death; a new agent begins with the shortest. */
const STORE_KILLS_A_LIFE = 3;
/** Observations hold segments back until the estimators' snapshot has them: two rounds of ten have some, and then comes a clean stop. */
const STOP_EVERY = 10;
const OBSERVING_ROUNDS = 2;
const CHECK_EVERY = 20;
/** A look reads the whole log: it waits until there is so much more of it, so that 10,000 rounds do not become quadratic. */
const CHECK_GROWTH = 1.25;
const STREAMS = 2;
/** Nothing that is waited for takes a tenth of it. */
const WITHIN_MILLIS = 30_000;
const SAMPLES = 500;

export interface CrashSettings {
  readonly rounds: number;
  readonly kill: Kill | 'all';
  readonly seed: number;
  readonly ratePerSecond: number;
  readonly mutant: MutantName | null;
  /** An empty folder; the data directory, the configuration and the log go there. */
  readonly directory: string;
  /** Look after each round, and stop at the first finding. */
  readonly isImpatient?: boolean;
  /** Ends the run, and the processes that it started. */
  readonly interruption?: AbortSignal;
}

export interface Round {
  readonly round: number;
  readonly kill: Kill;
  readonly answered: number;
  readonly millis: number;
  /** Set when the log was looked at after this round. */
  readonly evidence: Evidence | null;
}

export interface CrashReport {
  readonly isOk: boolean;
  readonly rounds: number;
  readonly kills: Readonly<Record<Kill, number>>;
  readonly sent: number;
  readonly answered: number;
  readonly refused: number;
  readonly fallbacks: number;
  readonly evidence: Evidence;
  readonly checks: number;
  /** Answers that were wrong when they came. */
  readonly wrongAnswers: readonly string[];
  /** Store processes that the agents started in place of one that was killed. */
  readonly storeRestarts: number;
  readonly segmentsDeleted: number;
  readonly chain: Chain;
  /** What else must not be: bad exits, processes that stay, alerts of the agent. */
  readonly troubles: readonly string[];
  readonly secondsPerRound: number;
}

/** Kills agents over one data directory, and compares what was answered with what is there. */
export async function runCrash(settings: CrashSettings, onRound: (round: Round) => void): Promise<CrashReport> {
  const run = await CrashRun.prepare(settings, onRound);
  try {
    return await run.run();
  } finally {
    await run.end();
  }
}

class CrashRun {
  readonly #settings: CrashSettings;
  readonly #onRound: (round: Round) => void;
  readonly #root: string;
  readonly #random: Random;
  readonly #ledger = new Ledger();
  readonly #controllers: Controllers;
  readonly #kills: Record<Kill, number> = { serve: 0, store: 0, both: 0 };
  readonly #stores = new Set<number>();
  readonly #segments = new Set<string>();
  readonly #troubles: string[] = [];
  #victim: Victim | null = null;
  #storeKillsLeft = 0;
  #storeRestarts = 0;
  #checks = 0;
  #checkedAnswers = 0;

  private constructor(settings: CrashSettings, onRound: (round: Round) => void, root: string, port: number) {
    this.#settings = settings;
    this.#onRound = onRound;
    this.#root = root;
    this.#random = new Random(settings.seed);
    const { ratePerSecond } = settings;
    this.#controllers = new Controllers({ port, ratePerSecond, ids: new RequestIds(), ledger: this.#ledger });
  }

  static async prepare(settings: CrashSettings, onRound: (round: Round) => void): Promise<CrashRun> {
    const { directory, mutant } = settings;
    const root = mutant === null ? ROOT : join(directory, 'mutant');
    if (mutant !== null) writeMutant(mutant, ROOT, root);
    mkdirSync(join(directory, 'bundles'), { recursive: true });
    const bundle = writeSumBundle(join(directory, 'bundles', 'sum'), BIAS);
    const port = await freePort(0);
    const config = {
      agentId: 'crash',
      dataDir: join(directory, 'data'),
      listen: { host: '127.0.0.1', port },
      threads: STREAMS,
      journal: { segmentMebibytes: 1 },
      store: { checkpointSeconds: 1 },
      slots: { [SLOT]: { bundle } },
    };
    writeFileSync(join(directory, 'agent.yaml'), stringify(config));
    return new CrashRun(settings, onRound, root, port);
  }

  async run(): Promise<CrashReport> {
    const { rounds, isImpatient = false } = this.#settings;
    const started = performance.now();
    this.#controllers.start();
    let evidence: Evidence | null = null;
    let round = 1;
    for (; round <= rounds; round++) {
      evidence = await this.#round(round);
      if (evidence !== null && isImpatient && !this.#isFine(evidence)) break;
    }
    const played = Math.min(round, rounds);
    const secondsPerRound = (performance.now() - started) / 1000 / played;
    if (evidence === null || this.#isFine(evidence)) {
      this.#start();
      await this.#untilAnswered();
      await this.#stopVictim();
      evidence = await this.#examine(true);
    }
    await this.#controllers.stop();
    return await this.#report(played, evidence, secondsPerRound);
  }

  /** Nothing that was started stays, however the run ended. */
  async end(): Promise<void> {
    await this.#controllers.stop();
    await this.#victim?.kill();
    for (const processId of this.#stores) if (isStoreOf(processId, this.#dataDirectory)) signalProcess(processId, 'SIGKILL');
  }

  async #round(round: number): Promise<Evidence | null> {
    this.#settings.interruption?.throwIfAborted();
    const started = performance.now();
    const before = this.#ledger.count;
    const kill = this.#settings.kill === 'all' ? KILLS[Math.floor(this.#random.between(0, KILLS.length))]! : this.#settings.kill;
    this.#controllers.round = round;
    this.#controllers.isObserving = (round - 1) % STOP_EVERY >= STOP_EVERY - OBSERVING_ROUNDS;
    if (kill === 'store') await this.#killStore();
    else await this.#killAgent(kill);
    this.#kills[kill] += 1;
    const hasGrown = this.#ledger.count >= this.#checkedAnswers * CHECK_GROWTH;
    const isChecked = this.#settings.isImpatient === true || (round % CHECK_EVERY === 0 && hasGrown);
    const isStopped = round % STOP_EVERY === 0;
    let evidence: Evidence | null = null;
    // As the kill has left it, when it was the agent; then as a clean stop leaves it.
    if (isChecked && this.#victim === null) evidence = await this.#examine(false);
    if (isStopped || (isChecked && this.#victim !== null)) {
      this.#start();
      await this.#untilAnswered();
      await this.#stopVictim();
      if (isChecked && evidence === null) evidence = await this.#examine(false);
    }
    const millis = performance.now() - started;
    this.#onRound({ round, kill, answered: this.#ledger.count - before, millis, evidence });
    return evidence;
  }

  /** At a random moment under load, or while it starts. Of `both`, either may be first. */
  async #killAgent(kill: 'serve' | 'both'): Promise<void> {
    const isEarly = this.#random.uniform() < EARLY_SHARE;
    const isStoreFirst = this.#random.uniform() < 0.5;
    const isLingering = this.#random.uniform() < LINGERING_SHARE;
    const moment = this.#random.uniform();
    const isFresh = this.#victim === null;
    const victim = this.#start();
    if (!(isEarly && isFresh)) await this.#untilAnswered();
    await delay(moment * (isEarly && isFresh ? EARLY_MILLIS : LOAD_MILLIS));
    const storeId = this.#look(victim);
    if (kill === 'both' && isStoreFirst && storeId !== null) signalProcess(storeId, 'SIGKILL');
    if (kill === 'serve' && isLingering && storeId !== null) this.#linger(storeId, moment * LINGERING_MILLIS);
    const dead = victim.kill();
    if (kill === 'both' && !isStoreFirst && storeId !== null) signalProcess(storeId, 'SIGKILL');
    await dead;
    this.#victim = null;
    this.#list();
  }

  /** As on a disk that hangs: the store process ends, with whatever it is doing, only when the next agent is there. */
  #linger(storeId: number, millis: number): void {
    signalProcess(storeId, 'SIGSTOP');
    setTimeout(() => {
      if (isStoreOf(storeId, this.#dataDirectory)) signalProcess(storeId, 'SIGCONT');
    }, millis);
  }

  /** The store process dies at a random moment of its life, and the agent must start another one while it answers. */
  async #killStore(): Promise<void> {
    const moment = this.#random.uniform();
    const isDraining = this.#random.uniform() < 0.5;
    const victim = this.#start();
    const storeId = await this.#untilStore(victim, null);
    const stored = this.#storedMillis();
    if (this.#storeKillsLeft === STORE_KILLS_A_LIFE) await this.#untilAnswered();
    if (isDraining) await this.#until(() => this.#storedMillis() > stored, 'nothing is stored');
    await delay(moment * STORE_MILLIS);
    signalProcess(storeId, 'SIGKILL');
    this.#list();
    this.#storeKillsLeft -= 1;
    await this.#untilStore(victim, storeId);
    this.#storeRestarts += 1;
    if (this.#storeKillsLeft === 0) await this.#stopVictim();
  }

  #start(): Victim {
    if (this.#victim !== null) return this.#victim;
    const { directory } = this.#settings;
    this.#storeKillsLeft = STORE_KILLS_A_LIFE;
    this.#victim = new Victim({
      root: this.#root,
      configFile: join(directory, 'agent.yaml'),
      dataDirectory: this.#dataDirectory,
      logFile: join(directory, 'agent.log'),
    });
    return this.#victim;
  }

  async #stopVictim(): Promise<void> {
    if (this.#victim === null) return;
    this.#look(this.#victim);
    const code = await this.#victim.stop(WITHIN_MILLIS);
    this.#victim = null;
    if (code !== 0) this.#troubles.push(`a clean stop ended with exit code ${code}`);
    this.#list();
  }

  /** Answers came from the agent that runs now. */
  async #untilAnswered(): Promise<void> {
    const before = this.#ledger.count;
    await this.#until(() => this.#ledger.count > before, 'no request is answered');
  }

  async #untilStore(victim: Victim, previous: number | null): Promise<number> {
    await this.#until(() => ![null, previous].includes(this.#look(victim)), 'there is no store process');
    return this.#look(victim) ?? 0;
  }

  /** When the store was last written. */
  #storedMillis(): number {
    return statSync(join(this.#dataDirectory, 'store', 'data.mdb'), { throwIfNoEntry: false })?.mtimeMs ?? 0;
  }

  /** Notes the store process, which is ended with the run. */
  #look(victim: Victim): number | null {
    const { storeId } = victim;
    if (storeId !== null) this.#stores.add(storeId);
    return storeId;
  }

  async #until(condition: () => boolean, problem: string): Promise<void> {
    const until = performance.now() + WITHIN_MILLIS;
    while (!condition()) {
      this.#settings.interruption?.throwIfAborted();
      const isDead = this.#victim?.isRunning !== true;
      if (isDead || performance.now() > until) {
        const log = readFileSync(join(this.#settings.directory, 'agent.log'), 'utf8').split('\n').slice(-20).join('\n');
        throw new Error(isDead ? `the agent ended by itself:\n${log}` : `${problem} for ${WITHIN_MILLIS} ms:\n${log}`);
      }
      await delay(5);
    }
  }

  async #examine(isLast: boolean): Promise<Evidence> {
    await this.#untilStoresEnd();
    this.#checks += 1;
    this.#checkedAnswers = this.#ledger.count;
    return await examine(this.#dataDirectory, this.#ledger, isLast ? this.#samples() : []);
  }

  /** A store process ends by itself when its agent is dead. */
  async #untilStoresEnd(): Promise<void> {
    const until = performance.now() + WITHIN_MILLIS;
    for (const processId of this.#stores) {
      while (isStoreOf(processId, this.#dataDirectory)) {
        if (performance.now() > until)
          throw new Error(`store process ${processId} still runs ${WITHIN_MILLIS} ms after its agent was killed`);
        await delay(5);
      }
      this.#stores.delete(processId);
    }
  }

  get #dataDirectory(): string {
    return join(this.#settings.directory, 'data');
  }

  #samples(): Answer[] {
    const { count } = this.#ledger;
    return count === 0 ? [] : Array.from({ length: SAMPLES }, () => this.#ledger.at(Math.floor(this.#random.between(0, count))));
  }

  #isFine(evidence: Evidence): boolean {
    return isSound(evidence) && evidence.oddities.length === 0 && this.#controllers.wrong.length === 0;
  }

  /** Remembers the segments that are there, to tell how many were deleted. */
  #list(): string[] {
    const folder = join(this.#dataDirectory, 'journal');
    const names = existsSync(folder) ? readdirSync(folder).filter((name) => name.endsWith('.journal')) : [];
    for (const name of names) this.#segments.add(name);
    return names;
  }

  async #report(rounds: number, evidence: Evidence, secondsPerRound: number): Promise<CrashReport> {
    const { directory } = this.#settings;
    const { sent, refused, fallbacks, wrong } = this.#controllers;
    const chain = await verifyChain(this.#root, this.#dataDirectory);
    const troubles = [...this.#troubles, ...alertsOf(readFileSync(join(directory, 'agent.log'), 'utf8'))];
    return {
      isOk: this.#isFine(evidence) && chain.isSound && troubles.length === 0 && this.#ledger.count > 0,
      rounds,
      kills: this.#kills,
      sent,
      answered: this.#ledger.count,
      refused,
      fallbacks,
      evidence,
      checks: this.#checks,
      wrongAnswers: wrong,
      storeRestarts: this.#storeRestarts,
      segmentsDeleted: this.#segments.size - this.#list().length,
      chain,
      troubles,
      secondsPerRound,
    };
  }
}

/** What the agent is alarmed at. Its store process dies three times in a row and more: it may say so. */
function alertsOf(log: string): string[] {
  const lines = log
    .split('\n')
    .filter((line) => / (warn|error) +(alert|agent|estimators|slot)|^error:|^ +at /.test(line) && !line.includes(' alert store_down '));
  return [...new Set(lines.map((line) => line.replace(/^\S+Z /, '')))].slice(0, 20);
}
