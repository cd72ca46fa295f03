// What every verb of the gateway is given, and what one call carries.

import type { Config } from '@cribus/chassis/config.ts';
import type { Logger } from '@cribus/chassis/log.ts';
import type { Failure } from '@cribus/contracts/failure.ts';
import type { OwnerName, RequestOf, ResponseOf, VerbName } from '@cribus/contracts/subjects.ts';
import type { Clock } from '@cribus/host/clock.ts';
import type { EventHub } from './events/event-hub.ts';
import type { Statistics } from './stats/statistics.ts';
import type { StreamAsk } from './streaming/ask.ts';
import type { Feed } from './view/feed.ts';
import type { NodeView } from './view/node-view.ts';
import type { Owners } from './view/owners.ts';

export interface Gateway {
  readonly config: Config;
  readonly version: string;
  readonly clock: Clock;
  readonly view: NodeView;
  readonly owners: Owners;
  readonly feed: Feed;
  readonly statistics: Statistics;
  readonly events: EventHub;
  /** Where a stream can be had, once, for a minute. Raises limit when too many wait. */
  readonly streamUrl: (ask: StreamAsk) => string;
}

export interface Call {
  readonly requestId: string;
  /** The caller's deadline and presence; bounds waits and nothing else. */
  readonly signal: AbortSignal;
  readonly log: Logger;
  /**
   * Asks an owner and applies every object that it changed before answering. Raises unavailable at
   * once when the owner is known to be away, else whatever the owner raises.
   */
  ask<V extends VerbName>(
    verb: V,
    request: RequestOf<V>,
    options: { readonly owner: OwnerName },
  ): Promise<ResponseOf<V>>;
}

/** One CRI verb. */
export type Verb<Request, Response> = (request: Request, call: Call) => Promise<Response>;

export interface StreamCall extends Call {
  /** Ends the stream with this failure, also while a message waits for its caller to take it. */
  readonly cut: (failure: Failure) => void;
}

/** One CRI verb that answers with any number of messages; it is ended by the signal of its call. */
export type StreamVerb<Request, Message> = (
  request: Request,
  call: StreamCall,
) => AsyncIterable<Message>;
