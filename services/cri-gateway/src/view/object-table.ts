// One kind of reported object: the newest version of each, and a memory of what was deleted, so that
// neither a late report nor a stale snapshot can bring back the past.

import type { Version } from '@cribus/contracts/gen/node/v1/records.ts';
import { MEMORY_OF_THE_PAST_MS, type OwnerName } from '@cribus/contracts/subjects.ts';

/** Beyond it the oldest tombstones go first. */
const TOMBSTONES_MAX = 20_000;

export interface ObjectVersion {
  readonly epoch: bigint;
  readonly revision: bigint;
}

export interface Entry<R> {
  readonly id: string;
  readonly owner: OwnerName;
  readonly version: ObjectVersion;
  readonly record: R;
  /** Counts applications in this process; tells what arrived after an inventory was asked for. */
  readonly appliedOrder: number;
  /** Wall clock when it was applied, nanoseconds. */
  readonly appliedAtNs: bigint;
}

export interface ObjectTable<R> {
  /** Takes the object if its version is greater than any seen of this id, deletions included. */
  put(entry: Entry<R>): boolean;
  /** Forgets the object and remembers its deletion, under the same rule. */
  remove(id: string, version: ObjectVersion, nowMs: number): boolean;
  /** Forgets what its owner no longer has; only a greater version than its last brings it back. */
  forget(id: string, nowMs: number): void;
  get(id: string): Entry<R> | undefined;
  values(): IterableIterator<Entry<R>>;
  readonly size: number;
  /** The id itself, or the only id that begins with it; `ambiguous` when there are several. */
  resolve(id: string): { readonly entry?: Entry<R>; readonly ambiguous: boolean };
}

interface Tombstone {
  readonly version: ObjectVersion;
  readonly untilMs: number;
}

/** The version as numbers to compare; an absent one is older than all. */
export function versionOf(version: Version | undefined): ObjectVersion {
  return { epoch: version?.epoch ?? 0n, revision: version?.revision ?? 0n };
}

export function isNewer(a: ObjectVersion, than: ObjectVersion): boolean {
  return a.epoch === than.epoch ? a.revision > than.revision : a.epoch > than.epoch;
}

export function createObjectTable<R>(): ObjectTable<R> {
  const entries = new Map<string, Entry<R>>();
  const tombstones = new Map<string, Tombstone>();

  const isNews = (id: string, version: ObjectVersion): boolean => {
    const known = entries.get(id)?.version ?? tombstones.get(id)?.version;
    return known === undefined || isNewer(version, known);
  };

  // Tombstones are in the order of their end, so the expired ones are at the front.
  const sweep = (nowMs: number): void => {
    for (const [id, tombstone] of tombstones) {
      if (tombstone.untilMs > nowMs && tombstones.size <= TOMBSTONES_MAX) return;
      tombstones.delete(id);
    }
  };

  const bury = (id: string, version: ObjectVersion, nowMs: number): void => {
    entries.delete(id);
    tombstones.delete(id);
    tombstones.set(id, { version, untilMs: nowMs + MEMORY_OF_THE_PAST_MS });
    sweep(nowMs);
  };

  return {
    put(entry) {
      if (!isNews(entry.id, entry.version)) return false;
      tombstones.delete(entry.id);
      entries.set(entry.id, entry);
      return true;
    },
    remove(id, version, nowMs) {
      if (!isNews(id, version)) return false;
      bury(id, version, nowMs);
      return true;
    },
    forget(id, nowMs) {
      const entry = entries.get(id);
      if (entry !== undefined) bury(id, entry.version, nowMs);
    },
    get: (id) => entries.get(id),
    values: () => entries.values(),
    get size() {
      return entries.size;
    },
    resolve(id) {
      const exact = entries.get(id);
      if (exact !== undefined) return { entry: exact, ambiguous: false };
      let found: Entry<R> | undefined;
      for (const entry of id === '' ? [] : entries.values()) {
        if (!entry.id.startsWith(id)) continue;
        if (found !== undefined) return { ambiguous: true };
        found = entry;
      }
      return found === undefined ? { ambiguous: false } : { entry: found, ambiguous: false };
    },
  };
}
