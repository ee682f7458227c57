import { lstatSync, readdirSync, type Stats, statSync } from 'node:fs';
import { join } from 'node:path';
import { isDeepStrictEqual } from 'node:util';
import { messageOf, SetpointError } from '../../protocol/errors.ts';
import { BUNDLE_LIMITS, MANIFEST_FILE } from '../../protocol/manifest.ts';
import { type Bundle, openBundle } from '../bundles/bundle.ts';
import type { BundleStore } from '../bundles/store.ts';
import type { VetOptions } from '../bundles/vet.ts';
import { compilePolicy, type GuardPolicy } from '../guard/policy.ts';
import type { BundleOrder, SlotStatus } from './messages.ts';

export interface SlotControlServices {
  readonly store: BundleStore;
  readonly vetOptions: Partial<VetOptions>;
  readonly prepare: (slot: string, order: BundleOrder) => Promise<void>;
  readonly activate: (slot: string, bundleId: string | null) => Promise<void>;
  /** The status of the slot changed. */
  readonly changed: (slot: SlotControl) => void;
}

/** Changes when another bundle takes the place of the one at a path. */
type Signature = string;

/**
 * One slot, as the control thread sees it: watches the configured path, and takes a new bundle through
 * install -> vet -> load and warm up -> activate, while the active one goes on answering. A bundle that fails on the way
 * is refused with the reason, and the active one stays.
 */
export class SlotControl {
  readonly name: string;
  readonly path: string;
  readonly #services: SlotControlServices;
  #status: SlotStatus;
  #policy: GuardPolicy | null = null;
  #seen: Signature | null = null;
  #work: Promise<void> = Promise.resolve();
  #isBusy = false;
  #isUnloaded = false;

  constructor(name: string, path: string, services: SlotControlServices) {
    this.name = name;
    this.path = path;
    this.#services = services;
    this.#status = { slot: name, state: 'loading', bundleId: null, version: null, lane: null, reason: null };
  }

  get status(): SlotStatus {
    return this.#status;
  }

  /** The guard of the active bundle, null while there is none. */
  get policy(): GuardPolicy | null {
    return this.#policy;
  }

  /** Looks at the path and takes a new bundle in, unless that is under way. Never rejects: the status tells. */
  async poll(): Promise<void> {
    if (this.#isBusy || this.#isUnloaded) return;
    const signature = signatureOf(this.path);
    if (signature === this.#seen && signature !== null) return;
    await this.#offer(() => openBundle(this.path), signature).catch(() => {
      // The reason is in the status; the caller of a poll has nobody to tell.
    });
  }

  /** Takes the bundle at the path in, whether it changed or not. @throws SetpointError what kept it out */
  async load(): Promise<void> {
    this.#isUnloaded = false;
    await this.#offer(() => openBundle(this.path), signatureOf(this.path));
  }

  /** Serves a bundle that the store holds. @throws SetpointError what kept it out */
  async restore(bundleId: string): Promise<void> {
    await this.#offer(() => this.#services.store.get(bundleId).bundle, null);
  }

  /** Stops answering until load(). */
  async unload(): Promise<void> {
    this.#isUnloaded = true;
    await this.#exclusively(async () => {
      await this.#services.activate(this.name, null);
      this.#policy = null;
      this.#set({ state: 'unloaded', bundleId: null, version: null, lane: null, reason: 'it was unloaded' });
    });
  }

  /** The bundle hung or crashed the heavy process; only another bundle, or load(), ends this. */
  suspend(why: string): void {
    this.#set({ ...this.#status, state: 'suspended', reason: why });
  }

  async #offer(find: () => Bundle, signature: Signature | null): Promise<void> {
    await this.#exclusively(async () => {
      try {
        await this.#take(find());
        this.#seen = signature;
      } catch (error) {
        // A bundle that is still being copied is looked at again; any other is refused once.
        this.#seen = error instanceof SetpointError && error.retryable ? null : signature;
        const state = this.#status.bundleId === null ? 'refused' : this.#status.state;
        this.#set({ ...this.#status, state, reason: messageOf(error) });
        throw error;
      }
    });
  }

  /** `offered` is opened once: the path may hold another bundle a moment later. */
  async #take(offered: Bundle): Promise<void> {
    const { store, vetOptions, prepare, activate } = this.#services;
    const { bundleId } = offered;
    if (bundleId === this.#status.bundleId && this.#status.state === 'ready') {
      this.#set({ ...this.#status, reason: null });
      return;
    }
    const stored = await store.install(offered);
    const policy = compilePolicy(stored.bundle.manifest);
    const report = await store.vet(bundleId, vetOptions);
    await prepare(this.name, { bundleId, directory: stored.folder, lane: report.lane, isBatchable: report.isBatchable });
    await activate(this.name, bundleId);
    this.#policy = policy;
    this.#set({ state: 'ready', bundleId, version: stored.bundle.manifest.version, lane: report.lane, reason: null });
  }

  #exclusively(work: () => Promise<void>): Promise<void> {
    const result = this.#work.then(async () => {
      this.#isBusy = true;
      try {
        await work();
      } finally {
        this.#isBusy = false;
      }
    });
    this.#work = result.catch(() => {
      // Whoever asked for the work has the error; the next in line starts all the same.
    });
    return result;
  }

  /** A path that stays wrong is looked at again and again; only what changes is told. */
  #set(status: Omit<SlotStatus, 'slot'>): void {
    const next = { ...status, slot: this.name };
    if (isDeepStrictEqual(next, this.#status)) return;
    this.#status = next;
    this.#services.changed(this);
  }
}

/**
 * What tells one bundle at a path from the next: every file's name, identity, time and size. Not the manifest's alone: a
 * copy may write the manifest before the model, and the last file to arrive must not go unnoticed. Null when there is none.
 */
function signatureOf(path: string): Signature | null {
  try {
    const stats = statSync(path);
    if (!stats.isDirectory()) return describeFile(path, stats);
    // First: a folder without a manifest is no bundle, however much it holds.
    statSync(join(path, MANIFEST_FILE));
    const names = readdirSync(path)
      .sort()
      .slice(0, 2 * BUNDLE_LIMITS.files);
    return names.map((name) => describeFile(name, lstatSync(join(path, name)))).join('\n');
  } catch {
    // Nothing there, or not yet: openBundle says which.
    return null;
  }
}

function describeFile(name: string, { ino, mtimeMs, size }: Stats): string {
  return `${name} ${ino} ${mtimeMs} ${size}`;
}
