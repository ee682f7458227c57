import { setTimeout as sleep } from 'node:timers/promises';
import { SetpointClient } from '../../protocol/client.ts';
import { type Clock, ToolLine } from './line.ts';
import { AlertLog } from './statistics.ts';
import { TOOLS } from './tools.ts';
import type { ViewLine } from './view.ts';

export interface FloorOptions {
  readonly url: string;
  /** Predictions per second over all tools. */
  readonly rate: number;
  readonly seed: number;
  /** How long a connection may take before the tools start without it. */
  readonly connectMillis?: number;
}

const WALL_CLOCK: Clock = { wallMillis: () => Date.now(), micros: () => performance.now() * 1000 };

/** How long a tool that is behind its rate may try to catch up; beyond it the wafers are not made up for. */
const CATCH_UP_MILLIS = 200;

/** The tools of the fab, each with a controller and a connection of its own, all on one event loop. */
export class FabFloor {
  readonly lines: readonly ToolLine[];
  readonly alerts = new AlertLog();
  readonly #clients: readonly SetpointClient[];
  readonly #rate: number;
  readonly #connectMillis: number;
  #loops: Promise<void>[] = [];
  #isStopping = false;

  constructor({ url, rate, seed, connectMillis = 5000 }: FloorOptions) {
    this.#connectMillis = connectMillis;
    this.#rate = rate / TOOLS.length;
    this.#clients = TOOLS.map((spec) => new SetpointClient({ url, clientName: `setpoint-fab ${spec.equipmentId}` }));
    const startedMillis = WALL_CLOCK.wallMillis();
    // No wafer of an earlier run is named again.
    const lotPrefix = `${startedMillis.toString(36).toUpperCase()}-`;
    this.lines = TOOLS.map((spec, index) => {
      const client = this.#clients[index] as SetpointClient;
      return new ToolLine({ spec, seed: seed + spec.seed, lotPrefix, client, clock: WALL_CLOCK, alerts: this.alerts, startedMillis });
    });
  }

  /** Connects every controller and starts the tools; false when a connection did not come. */
  async start(): Promise<boolean> {
    const connected = await Promise.all(this.#clients.map((client) => client.connect(this.#connectMillis)));
    this.#loops = this.lines.map((line, index) => this.#play(line, index / this.lines.length));
    return connected.every(Boolean);
  }

  /** Finishes the wafers in hand and closes the connections. @throws what a controller threw */
  async stop(): Promise<void> {
    this.#isStopping = true;
    await Promise.all(this.#loops);
    for (const client of this.#clients) client.close();
  }

  /** Resolves never, and rejects with what a controller threw: a defect of the fab or of the client. */
  async failure(): Promise<never> {
    await Promise.all(this.#loops);
    return new Promise<never>(() => {});
  }

  viewLines(): ViewLine[] {
    const nowMillis = WALL_CLOCK.wallMillis();
    return this.lines.map(({ spec, statistics, settings }) => {
      const roundTrip = statistics.recent(nowMillis);
      return {
        slot: spec.slot,
        perSecond: roundTrip.perSecond,
        roundTrip,
        actions: { ...statistics.actions },
        observations: statistics.observations,
        controlError: statistics.controlError,
        valueUnit: spec.valueUnit,
        settings: [...settings],
        settingUnit: spec.settingUnit,
      };
    });
  }

  /**
   * Steps the line at its rate: as many wafers as the time since the last look has earned, then 1 ms of sleep.
   * @param phase part of a wafer already earned: tools of a fab do not finish their wafers at the same moment
   */
  async #play(line: ToolLine, phase: number): Promise<void> {
    let earned = phase;
    let lookedMillis = performance.now();
    while (!this.#isStopping) {
      const nowMillis = performance.now();
      earned += ((nowMillis - lookedMillis) / 1000) * this.#rate;
      earned = Math.min(earned, Math.max(1, (CATCH_UP_MILLIS / 1000) * this.#rate));
      lookedMillis = nowMillis;
      for (; earned >= 1 && !this.#isStopping; earned--) await line.step();
      await sleep(1);
    }
  }
}
