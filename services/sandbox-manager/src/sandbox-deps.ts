// What the verbs of the sandbox manager work with, and how they ask a sandbox's worker.

import type { VerbContext } from '@cribus/chassis/owner.ts';
import type { KeyedLock } from '@cribus/chassis/queue.ts';
import type { RecordStore } from '@cribus/chassis/records.ts';
import type { Service } from '@cribus/chassis/service.ts';
import type { ObjectReport, SandboxRecord } from '@cribus/contracts/gen/node/v1/records.ts';
import { type RequestOf, type ResponseOf, runtimeOwner } from '@cribus/contracts/subjects.ts';
import type { CgroupHost } from '@cribus/host/cgroups.ts';
import type { AttachmentDeps } from './network/attachment.ts';
import type { NetworkSource } from './network/network-source.ts';
import type { PodCidr } from './network/pod-cidr.ts';
import type { Reservations } from './reservations.ts';

export interface SandboxDeps {
  readonly service: Service;
  readonly store: RecordStore<SandboxRecord>;
  /** By sandbox id: one verb at a time changes a sandbox. */
  readonly locks: KeyedLock;
  /** By sandbox id, held only while its record is written. */
  readonly updates: KeyedLock;
  readonly reservations: Reservations;
  readonly network: NetworkSource;
  readonly attachment: AttachmentDeps;
  readonly podCidr: PodCidr;
  readonly cgroups: CgroupHost;
  /** Configured ones, and those whose worker announced itself later. */
  readonly handlers: Set<string>;
  /** Sandboxes whose process ended before they were READY, with the reason. */
  readonly earlyExits: Map<string, string>;
}

/** A call that work is done for: a verb's, or one of our own in the background. */
export type Caller = Pick<VerbContext, 'requestId' | 'signal' | 'log' | 'changed' | 'ask'>;

/** `changed` of background work is not sent to anybody: the events tell. */
export function backgroundCaller(
  service: Service,
  options: { readonly requestId: string; readonly signal: AbortSignal },
): Caller {
  const changed: ObjectReport[] = [];
  return {
    ...options,
    log: service.log.child({ request_id: options.requestId }),
    changed,
    ask: async (verb, request, ask) => {
      const { result } = await service.bus.ask(verb, request, {
        signal: options.signal,
        requestId: options.requestId,
        ...ask,
      });
      return result;
    },
  };
}

type WorkerVerb = 'start-sandbox' | 'stop-sandbox' | 'remove-sandbox';

/** Asks the worker of the sandbox's handler. Raises unavailable when it is down. */
export function askWorker<V extends WorkerVerb>(
  caller: Caller,
  verb: V,
  options: {
    readonly record: SandboxRecord;
    readonly request: RequestOf<V>;
    readonly signal?: AbortSignal;
  },
): Promise<ResponseOf<V>> {
  const { record, request, signal } = options;
  return caller.ask(verb, request, {
    owner: runtimeOwner(record.handler),
    ...(signal === undefined ? {} : { signal }),
  });
}
