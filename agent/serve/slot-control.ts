import { statSync } from 'node:fs';
import { join } from 'node:path';
import { messageOf, SetpointError } from '../../protocol/errors.ts';
import { MANIFEST_FILE } from '../../protocol/manifest.ts';
import { openBundle } from '../bundles/bundle.ts';
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

/** A copy of the bundle's own description that changes when a bundle is put in the place of another. */
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
    await this.#offer(() => openBundle(this.path).bundleId, signature).catch(() => {
      // The reason is in the status; the caller of a poll has nobody to tell.
    });
  }

  /** Takes the bundle at the path in, whether it changed or not. @throws SetpointError what kept it out */
  async load(): Promise<void> {
    this.#isUnloaded = false;
    await this.#offer(() => openBundle(this.path).bundleId, signatureOf(this.path));
  }

  /** Serves a bundle that the store holds. @throws SetpointError what kept it out */
  async restore(bundleId: string): Promise<void> {
    await this.#offer(() => this.#services.store.get(bundleId).bundle.bundleId, null, bundleId);
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

  async #offer(find: () => string, signature: Signature | null, storedId: string | null = null): Promise<void> {
    await this.#exclusively(async () => {
      try {
        await this.#take(find, storedId);
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

  async #take(find: () => string, storedId: string | null): Promise<void> {
    const { store, vetOptions, prepare, activate } = this.#services;
    const bundleId = find();
    if (bundleId === this.#status.bundleId && this.#status.state === 'ready') {
      this.#set({ ...this.#status, reason: null });
      return;
    }
    const stored = storedId === null ? await store.install(openBundle(this.path)) : store.get(storedId);
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

  #set(status: Omit<SlotStatus, 'slot'>): void {
    this.#status = { ...status, slot: this.name };
    this.#services.changed(this);
  }
}

/** What tells one bundle at a path from the next: the file behind the name, its time and size. Null when there is none. */
function signatureOf(path: string): Signature | null {
  try {
    const stats = statSync(path);
    const { ino, mtimeMs, size } = stats.isDirectory() ? statSync(join(path, MANIFEST_FILE)) : stats;
    return `${ino} ${mtimeMs} ${size}`;
  } catch {
    // Nothing there, or not yet: openBundle says which.
    return null;
  }
}
