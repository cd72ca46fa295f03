// What makes a service an owner: verbs served on the bus, operations joined and remembered, records
// on disk, changes reported, heartbeats, inventory.

import type { ObjectReport, OwnerStatus } from '@cribus/contracts/gen/node/v1/records.ts';
import type {
  OwnerKind,
  OwnerName,
  RequestOf,
  ResponseOf,
  VerbName,
  VerbsOf,
} from '@cribus/contracts/subjects.ts';
import type { Answer } from './bus.ts';
import type { Logger } from './log.ts';
import type { RecordStore } from './records.ts';
import type { Service } from './service.ts';

export interface VerbContext {
  readonly requestId: string;
  readonly operationId: string;
  /** 1 for the first ask of this operation id; more when an answer may have been lost. */
  readonly attempt: number;
  /** SHA-256 of the encoded request, hex. */
  readonly requestHash: string;
  /** The operation's own budget and the service's end; never the caller's deadline. */
  readonly signal: AbortSignal;
  readonly log: Logger;
  /** Objects changed so far; RecordStore.put adds to it, the reply carries it. */
  readonly changed: ObjectReport[];
  /** Asks another owner on behalf of this call: same request id and trace; its changes are ours. */
  ask<V extends VerbName>(
    verb: V,
    request: RequestOf<V>,
    options: {
      readonly owner: OwnerName;
      readonly signal?: AbortSignal;
      readonly operationId?: string;
    },
  ): Promise<ResponseOf<V>>;
}

export type VerbHandler<V extends VerbName> = (
  request: RequestOf<V>,
  context: VerbContext,
) => Promise<ResponseOf<V>>;

/** Served by the chassis itself, for every owner. */
type ChassisVerb = 'inventory' | 'acknowledge-operation';

/** One handler per verb of the kind: a missing one does not compile. */
export type VerbTable<K extends OwnerKind> = {
  readonly [V in Exclude<VerbsOf<K>, ChassisVerb>]: VerbHandler<V>;
};

export interface OwnerOptions<K extends OwnerKind> {
  readonly service: Service;
  readonly kind: K;
  readonly name: OwnerName;
  /** Holds `epoch` and remembered operations. */
  readonly directory: string;
  readonly verbs: VerbTable<K>;
  /** What inventory answers: every record of these stores. */
  readonly stores: readonly RecordStore<never>[];
  /** Conditions, handler features, warnings; asked at each heartbeat. */
  readonly describe: () => Partial<OwnerStatus>;
  /** The asker of a finished operation has its answer: the record's OperationStamp may say so. */
  readonly onAcknowledged?: (operationId: string) => void;
}

export interface Owner {
  readonly name: OwnerName;
  readonly epoch: bigint;
  /** Subscribes and announces. Call after records are loaded and adopted. */
  serve(): Promise<void>;
  /** Publishes the status at once, after something in `describe` changed. */
  announce(): void;
  /** Unsubscribes, and waits for running operations. */
  drain(): Promise<void>;
}

/** Raises this owner's persisted epoch; the stores are opened with it. Must hold the owner's lock. */
export async function openEpoch(_directory: string): Promise<bigint> {
  throw new Error('not built');
}

/** Makes the owner; nothing is served before `serve`. */
export function createOwner<K extends OwnerKind>(
  _options: OwnerOptions<K> & { readonly epoch: bigint },
): Owner {
  throw new Error('not built');
}

export type { Answer };
