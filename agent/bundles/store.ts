import { existsSync, mkdirSync, readdirSync, renameSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { SetpointError } from '../../protocol/errors.ts';
import { BUNDLE_LIMITS, MANIFEST_FILE, parseManifest } from '../../protocol/manifest.ts';
import { ENGINE } from '../infer/session.ts';
import { openBundle, writeBundle, type Bundle } from './bundle.ts';
import { readBounded, replaceFile, temporaryBeside } from './disk.ts';
import { VET_DEFAULTS, vetBundle, type VetOptions } from './vet.ts';
import { formatVetReport, isCurrent, parseVetReport, type VetReport } from './vet-report.ts';

/**
 * The bundles on an agent's disk: `<dataDirectory>/bundles/<bundleId>/` holds the bundle's files and nothing else,
 * `<bundleId>.vet.json` beside it what its vetting found. A folder is there whole or not at all.
 */
export interface StoredBundle {
  readonly bundle: Bundle;
  readonly folder: string;
  /** The last report, also when it is of another engine or budget; null before the first vetting. */
  readonly report: VetReport | null;
}

export interface StoredEntry {
  readonly bundleId: string;
  readonly name: string;
  readonly version: string;
  readonly isVetted: boolean;
}

const BUNDLE_ID = /^[0-9a-f]{64}$/;
const MAX_REPORT_BYTES = 64 * 1024;
/** 150 slots with an active, a previous, a shadow and a fallback bundle are 600; several sites' worth is the limit. */
const MAX_STORED_BUNDLES = 4096;

export type Vet = (bundle: Bundle, options: Partial<VetOptions>) => Promise<VetReport>;

export class BundleStore {
  readonly #folder: string;
  readonly #vet: Vet;
  /** Vettings under way, so that two askers share one; one entry a bundle, removed when it ends. */
  readonly #vetting = new Map<string, Promise<VetReport>>();

  /** Creates the folder, and removes what a crash left half written. */
  constructor(dataDirectory: string, vet: Vet = vetBundle) {
    this.#folder = join(dataDirectory, 'bundles');
    this.#vet = vet;
    mkdirSync(this.#folder, { recursive: true });
    for (const name of readdirSync(this.#folder)) {
      if (/^\.setpoint-[0-9a-f]{16}\.tmp$/.test(name)) rmSync(join(this.#folder, name), { recursive: true, force: true });
    }
  }

  /**
   * Copies a bundle in, verified as it is read, and durable when this resolves. Does nothing for one that is already there and
   * whole; one that is there and damaged is replaced.
   * @throws SetpointError invalid_bundle, invalid_config when the store is full or cannot be written
   */
  async install(bundle: Bundle): Promise<StoredBundle> {
    const folder = this.#folderOf(bundle.bundleId);
    const stored = this.#openOrNull(bundle.bundleId);
    if (stored !== null) return stored;
    if (existsSync(folder)) this.remove(bundle.bundleId);
    if (this.#ids().length >= MAX_STORED_BUNDLES) {
      throw new SetpointError(
        'invalid_config',
        `Cannot install bundle ${bundle.bundleId}: ${MAX_STORED_BUNDLES} are stored, more are not allowed`,
        {
          remedy: 'remove bundles that no slot names',
        },
      );
    }
    writeBundle(folder, bundle);
    return this.get(bundle.bundleId);
  }

  /**
   * Opens and verifies a stored bundle.
   * @throws SetpointError not_found, or what openBundle says of a damaged one
   */
  get(bundleId: string): StoredBundle {
    const folder = this.#folderOf(bundleId);
    const bundle = openBundle(folder);
    if (bundle.bundleId !== bundleId) {
      throw new SetpointError('invalid_bundle', `Cannot open stored bundle ${bundleId}: its manifest has SHA-256 ${bundle.bundleId}`, {
        field: bundleId,
        remedy: 'install the bundle again',
      });
    }
    return { bundle, folder, report: this.#readReport(bundleId) };
  }

  /** The report of a stored bundle: the stored one while engine and inline budget are the same, else of a new vetting. */
  async vet(bundleId: string, options: Partial<VetOptions> = {}): Promise<VetReport> {
    const { bundle, report } = this.get(bundleId);
    const budget = options.inlineBudgetMicros ?? VET_DEFAULTS.inlineBudgetMicros;
    if (report !== null && isCurrent(report, bundleId, ENGINE, budget)) return report;
    const key = `${bundleId} ${budget}`;
    const running = this.#vetting.get(key);
    if (running !== undefined) return await running;
    const vetting = this.#vet(bundle, options)
      .then((found) => {
        replaceFile(this.#reportPath(bundleId), formatVetReport(found));
        return found;
      })
      .finally(() => this.#vetting.delete(key));
    this.#vetting.set(key, vetting);
    return await vetting;
  }

  /** What is stored, by bundle id; only manifests are read, get() verifies. Damaged bundles are left out: install() mends them. */
  list(): StoredEntry[] {
    return this.#ids().flatMap((bundleId) => {
      try {
        const { name, version } = parseManifest(readBounded(join(this.#folderOf(bundleId), MANIFEST_FILE), BUNDLE_LIMITS.manifestBytes));
        return [{ bundleId, name, version, isVetted: this.#readReport(bundleId) !== null }];
      } catch (thrown) {
        if (thrown instanceof SetpointError) return [];
        throw thrown;
      }
    });
  }

  /** Removes a bundle and its report; nothing happens for one that is not there. */
  remove(bundleId: string): void {
    const folder = this.#folderOf(bundleId);
    rmSync(this.#reportPath(bundleId), { force: true });
    if (!existsSync(folder)) return;
    // Renamed first: a crash while files are removed leaves no bundle that looks whole.
    const temporary = temporaryBeside(folder);
    renameSync(folder, temporary);
    rmSync(temporary, { recursive: true, force: true });
  }

  #ids(): string[] {
    return readdirSync(this.#folder)
      .filter((name) => BUNDLE_ID.test(name))
      .sort();
  }

  #folderOf(bundleId: string): string {
    if (!BUNDLE_ID.test(bundleId)) {
      throw new SetpointError(
        'not_found',
        `Cannot find bundle ${JSON.stringify(bundleId.slice(0, 80))}: an id is 64 lower-case hexadecimal digits`,
        {
          remedy: 'use an id that setpoint bundle inspect prints',
        },
      );
    }
    return join(this.#folder, bundleId);
  }

  #reportPath(bundleId: string): string {
    return `${this.#folderOf(bundleId)}.vet.json`;
  }

  #openOrNull(bundleId: string): StoredBundle | null {
    try {
      return this.get(bundleId);
    } catch (thrown) {
      if (thrown instanceof SetpointError) return null;
      throw thrown;
    }
  }

  /** A report that cannot be read counts as none: vetting again is always right. */
  #readReport(bundleId: string): VetReport | null {
    try {
      return parseVetReport(readBounded(this.#reportPath(bundleId), MAX_REPORT_BYTES), `${bundleId}.vet.json`);
    } catch (thrown) {
      if (thrown instanceof SetpointError) return null;
      throw thrown;
    }
  }
}
