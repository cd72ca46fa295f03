// Asking an owner, and hearing its events. One connection per service; core NATS only.

import type { ObjectReport, OwnerStatus } from '@cribus/contracts/gen/node/v1/records.ts';
import type {
  EventKind,
  OwnerName,
  RequestOf,
  ResponseOf,
  VerbName,
} from '@cribus/contracts/subjects.ts';
import type { Logger } from './log.ts';

export interface AskOptions {
  readonly owner: OwnerName;
  /** Bounds the wait and nothing else: aborting it detaches, the operation goes on at its owner. */
  readonly signal: AbortSignal;
  readonly requestId: string;
  /** For mutating verbs: kept over every re-ask; default: a new one. */
  readonly operationId?: string;
}

export interface Answer<T> {
  readonly result: T;
  /** Every object that the verb changed, to be applied before one's own caller is answered. */
  readonly changed: readonly ObjectReport[];
}

export interface Bus {
  readonly node: string;
  /**
   * Asks the owner of a verb. A mutating one is asked again with the same operation id every 2 s,
   * after each reconnect, and on "no responders" within the start-up grace of 5 s. Raises the
   * owner's own Failure; unavailable ("<owner> does not answer: …") when nobody responds; the
   * signal's reason when it aborts.
   */
  ask<V extends VerbName>(
    verb: V,
    request: RequestOf<V>,
    options: AskOptions,
  ): Promise<Answer<ResponseOf<V>>>;
  /** Tells without waiting (acknowledge-operation). */
  tell<V extends VerbName>(verb: V, request: RequestOf<V>, owner: OwnerName): void;
  publish(kind: Exclude<EventKind, 'owner'>, report: ObjectReport): void;
  publish(kind: 'owner', status: OwnerStatus): void;
  /** Calls `onEvent` for each event until the signal aborts; `onGap` after every reconnect. */
  subscribe(options: {
    readonly onReport?: (report: ObjectReport) => void;
    readonly onOwner?: (status: OwnerStatus) => void;
    readonly onReconnect?: () => void;
    readonly signal: AbortSignal;
  }): void;
  connected(): boolean;
  close(): Promise<void>;
}

export interface ConnectOptions {
  readonly url: string;
  readonly node: string;
  /** The service's name; also names its nkey seed and its private inbox prefix. */
  readonly service: string;
  readonly credentialsDirectory: string;
  readonly log: Logger;
}

/** Connects; keeps trying until the signal aborts. Reconnects for ever afterwards. */
export async function connectBus(
  _options: ConnectOptions & { readonly signal: AbortSignal },
): Promise<Bus> {
  throw new Error('not built');
}
