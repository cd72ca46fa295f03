// Versioned records: on disk first, then reported to the bus and to Redis.

import type { ObjectReport, Version } from '@cribus/contracts/gen/node/v1/records.ts';
import type { Codec, OwnerName } from '@cribus/contracts/subjects.ts';
import type { Service } from './service.ts';

/** What every record has; `format` is the layout's version. */
export interface AnyRecord {
  format: number;
  version?: Version | undefined;
  id: string;
}

export interface RecordStoreOptions<R extends AnyRecord> {
  readonly service: Service;
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
  /** Reads every record from disk, once. One that can't be read is set aside (`.corrupt`) and logged; its id is returned. */
  load(): Promise<{ readonly corrupt: readonly string[] }>;
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
}

export function createRecordStore<R extends AnyRecord>(
  _options: RecordStoreOptions<R>,
): RecordStore<R> {
  throw new Error('not built');
}
