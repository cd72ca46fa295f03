// Versioned records: on disk first, then reported to the bus and to Redis.

import { mkdir, rename, unlink } from 'node:fs/promises';
import { dirname } from 'node:path';
import { Failure, isFailure } from '@cribus/contracts/failure.ts';
import type { ObjectReport, Version } from '@cribus/contracts/gen/node/v1/records.ts';
import type { Codec, OwnerName } from '@cribus/contracts/subjects.ts';
import { isErrno } from '@cribus/host/errno.ts';
import { readFileIfExists, writeFileAtomic } from '@cribus/host/files.ts';
import { createKeyedLock } from './queue.ts';
import { nextSequence } from './sequence.ts';
import type { Service } from './service.ts';
import { RECORD_FORMAT_RAISE } from './version.ts';

/** What every record has; `format` is the layout's version. */
export interface AnyRecord {
  format: number;
  version?: Version | undefined;
  id: string;
}

export interface RecordStoreOptions<R extends AnyRecord> {
  readonly service: Pick<Service, 'bus' | 'mirror' | 'log'>;
  readonly owner: OwnerName;
  readonly epoch: bigint;
  /** Which oneof case of ObjectReport; undefined: kept on disk only (leases). */
  readonly kind: 'sandbox' | 'container' | 'image' | undefined;
  readonly codec: Codec<R>;
  readonly format: number;
  /** The record's file, as `<dir>/<id>/record.pb`; and all ids present at start. */
  readonly fileOf: (id: string) => string;
  readonly listIds: () => Promise<string[]>;
}

export interface RecordStore<R extends AnyRecord> {
  /**
   * Reads every record from disk, once. One that can't be read is set aside (`.corrupt`) and
   * logged; its id is returned. `missing` are the ids whose file is absent: a crash came between
   * its directory and its record, or between the record's removal and the directory's.
   */
  load(): Promise<{ readonly corrupt: readonly string[]; readonly missing: readonly string[] }>;
  get(id: string): R | undefined;
  /** A copy of the list, oldest first. */
  all(): R[];
  /**
   * Gives the record the next revision, writes it (fsynced when `durable`), then reports it.
   * Writes of one id are serialised. Pass the verb's `changed` so that its reply carries it.
   */
  put(
    record: R,
    options?: { readonly durable?: boolean; readonly changed?: ObjectReport[] },
  ): Promise<R>;
  /** Removes the file, then reports a deletion with the next revision. */
  remove(id: string, options?: { readonly changed?: ObjectReport[] }): Promise<void>;
  /** Every record as a report, in the order of `all`; none for a store without a kind. */
  reports(): ObjectReport[];
}

/** At most this many files are read at once at start. */
const LOAD_PARALLEL = 16;
/**
 * Of a format that this version does not know yet: so far ahead a record is read all the same, so that
 * a node can go back by one version. What a format adds must be dispensable to the one before.
 */
const FORMATS_AHEAD_MAX = 1;

/** Makes a store; it is empty until `load`. */
export function createRecordStore<R extends AnyRecord>(
  options: RecordStoreOptions<R>,
): RecordStore<R> {
  const { service, owner, epoch } = options;
  const format = options.format + RECORD_FORMAT_RAISE;
  const records = new Map<string, R>();
  const lock = createKeyedLock();
  // One counter for the store, not one per record: an image that is removed and pulled again must
  // come with a greater revision than its tombstone.
  let revision = 0n;

  function toReport(id: string, version: Version, record: R | undefined): ObjectReport {
    // The oneof's case and the record's type are tied by the options only.
    const object = { $case: options.kind, value: record } as unknown as ObjectReport['object'];
    return {
      owner,
      version,
      id,
      deleted: record === undefined,
      object: record === undefined ? undefined : object,
      sequence: 0n,
    };
  }

  function tell(report: ObjectReport, changed: ObjectReport[] | undefined): void {
    if (options.kind === undefined) return;
    report.sequence = nextSequence(service.bus, owner);
    service.bus.publish(options.kind, report);
    service.mirror.report(report);
    if (changed !== undefined) addChanged(changed, report);
  }

  return {
    async load() {
      const loaded = await loadAll(options);
      for (const record of loaded.records) {
        records.set(record.id, record);
        const known = record.version?.revision ?? 0n;
        if (known > revision) revision = known;
      }
      return loaded;
    },
    get: (id) => records.get(id),
    all: () => [...records.values()].sort(byAge),
    put: (record, { durable, changed } = {}) =>
      lock.run(record.id, async () => {
        revision += 1n;
        const version = { epoch, revision };
        const next = { ...record, format, version };
        await writeRecord(options.fileOf(record.id), options.codec.encode(next).finish(), durable);
        records.set(record.id, next);
        tell(toReport(record.id, version, next), changed);
        return next;
      }),
    remove: (id, { changed } = {}) =>
      lock.run(id, async () => {
        try {
          await unlink(options.fileOf(id));
        } catch (error) {
          if (!isErrno(error, 'ENOENT', 'ENOTDIR')) throw error;
        }
        if (!records.delete(id)) return;
        revision += 1n;
        tell(toReport(id, { epoch, revision }, undefined), changed);
      }),
    reports() {
      if (options.kind === undefined) return [];
      return [...records.values()]
        .sort(byAge)
        .map((record) => toReport(record.id, record.version ?? { epoch, revision: 0n }, record));
    },
  };
}

/** Adds a report in place of an earlier one of the same object: a reply carries the last of each. */
export function addChanged(changed: ObjectReport[], report: ObjectReport): void {
  const index = changed.findIndex((one) => one.owner === report.owner && one.id === report.id);
  if (index >= 0) changed.splice(index, 1);
  changed.push(report);
}

async function writeRecord(
  file: string,
  data: Uint8Array,
  durable: boolean | undefined,
): Promise<void> {
  const options = { durable: durable ?? false, mode: 0o600 };
  try {
    await writeFileAtomic(file, data, options);
  } catch (error) {
    if (!isErrno(error, 'ENOENT')) throw error;
    await mkdir(dirname(file), { recursive: true, mode: 0o700 });
    await writeFileAtomic(file, data, options);
  }
}

function byAge(a: AnyRecord, b: AnyRecord): number {
  const difference = ageNs(a) - ageNs(b);
  if (difference !== 0n) return difference < 0n ? -1 : 1;
  return a.id < b.id ? -1 : 1;
}

function ageNs(record: AnyRecord): bigint {
  if ('createdAtNs' in record && typeof record.createdAtNs === 'bigint') return record.createdAtNs;
  if ('pulledAtNs' in record && typeof record.pulledAtNs === 'bigint') return record.pulledAtNs;
  if ('takenAtNs' in record && typeof record.takenAtNs === 'bigint') return record.takenAtNs;
  return 0n;
}

async function loadAll<R extends AnyRecord>(
  options: RecordStoreOptions<R>,
): Promise<{ records: R[]; corrupt: string[]; missing: string[] }> {
  const loaded = { records: [] as R[], corrupt: [] as string[], missing: [] as string[] };
  const ids = await options.listIds();
  let next = 0;
  const reader = async () => {
    for (let id = ids[next++]; id !== undefined; id = ids[next++]) {
      const file = options.fileOf(id);
      const bytes = await readFileIfExists(file);
      if (bytes === undefined) {
        loaded.missing.push(id);
        continue;
      }
      try {
        loaded.records.push(decodeRecord(options, id, bytes));
      } catch (error) {
        if (isFailure(error, 'wrong_state')) throw error;
        await rename(file, `${file}.corrupt`);
        loaded.corrupt.push(id);
        options.service.log.error(
          { id, file: `${file}.corrupt`, error },
          'a record can not be read and is set aside',
        );
      }
    }
  };
  await Promise.all(Array.from({ length: LOAD_PARALLEL }, reader));
  return loaded;
}

/** Raises wrong_state for a record of a much newer version of ours, which must not be set aside. */
function decodeRecord<R extends AnyRecord>(
  options: RecordStoreOptions<R>,
  id: string,
  bytes: Uint8Array,
): R {
  const record = options.codec.decode(bytes);
  if (record.id !== id || record.format < 1) {
    throw new Failure('data_loss', `${options.fileOf(id)} does not hold the record of ${id}`);
  }
  const known = options.format + FORMATS_AHEAD_MAX;
  if (record.format > known) {
    throw new Failure(
      'wrong_state',
      `${options.fileOf(id)} has format ${record.format}, this version reads up to ${known}`,
    );
  }
  return record;
}
