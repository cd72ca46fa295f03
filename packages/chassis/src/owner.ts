// What makes a service an owner: verbs served on the bus, operations joined and remembered, records
// on disk, changes reported, heartbeats, inventory.

import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { Failure } from '@cribus/contracts/failure.ts';
import { type ObjectReport, OwnerStatus } from '@cribus/contracts/gen/node/v1/records.ts';
import {
  HEARTBEAT_INTERVAL_MS,
  type OwnerKind,
  type OwnerName,
  type RequestOf,
  type ResponseOf,
  VERBS,
  type VerbName,
  type VerbsOf,
  verbSubject,
} from '@cribus/contracts/subjects.ts';
import { readFileIfExists, writeFileAtomic } from '@cribus/host/files.ts';
import { joinSignals } from '@cribus/host/joined-signals.ts';
import type { Answer } from './bus.ts';
import { createEndpointStats, registerMicroService } from './discovery.ts';
import { inventoryPage } from './inventory.ts';
import type { Logger } from './log.ts';
import { type Operations, openOperations } from './operations.ts';
import type { AnyRecord, RecordStore } from './records.ts';
import { lastSequence } from './sequence.ts';
import { createVerbServer, type ServedVerb } from './serve-verb.ts';
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
  readonly stores: readonly RecordStore<AnyRecord>[];
  /** Conditions, handler features, warnings; asked at each heartbeat. */
  readonly describe: () => Partial<OwnerStatus>;
  /** The asker of a finished operation has its answer: the record's OperationStamp may say so. */
  readonly onAcknowledged?: (operationId: string) => void;
}

export interface Owner {
  readonly name: OwnerName;
  readonly epoch: bigint;
  /**
   * Subscribes and announces, and sees to it that the service's end drains. Call after records are
   * loaded and adopted.
   */
  serve(): Promise<void>;
  /** Publishes the status at once, after something in `describe` changed. */
  announce(): void;
  /** Unsubscribes, and waits for running operations. */
  drain(): Promise<void>;
}

/** Running operations have this long at the end of the service before their signal aborts. */
const DRAIN_MS = 8_000;

/** Raises this owner's persisted epoch; the stores are opened with it. Must hold the owner's lock. */
export async function openEpoch(directory: string): Promise<bigint> {
  await mkdir(directory, { recursive: true, mode: 0o700 });
  const file = join(directory, 'epoch');
  const text = (await readFileIfExists(file))?.toString('utf8').trim() ?? '0';
  if (!/^\d{1,19}$/.test(text)) {
    throw new Failure('data_loss', `${file} holds ${JSON.stringify(text)}, which is no number`);
  }
  const epoch = BigInt(text) + 1n;
  // Durable: an epoch that comes twice would make the view ignore what is new.
  await writeFileAtomic(file, `${epoch}\n`, { durable: true, mode: 0o600 });
  return epoch;
}

/** Makes the owner; nothing is served before `serve`. */
export function createOwner<K extends OwnerKind>(
  options: OwnerOptions<K> & { readonly epoch: bigint },
): Owner {
  const { service, name, epoch } = options;
  const ending = new AbortController();
  let state: 'new' | 'serving' | 'draining' = 'new';
  let close: ((signal: AbortSignal) => Promise<void>) | undefined;

  const status = (): OwnerStatus =>
    OwnerStatus.fromPartial({
      ...options.describe(),
      owner: name,
      service: service.name,
      instanceId: service.instanceId,
      version: service.version,
      epoch,
      sequence: lastSequence(service.bus, name),
      pid: process.pid,
      stopping: state === 'draining',
    });
  const announce = () => service.bus.publish('owner', status());

  async function serve(): Promise<void> {
    if (state !== 'new') throw new Error(`${name} is served already`);
    const operations = await openOperations({
      directory: join(options.directory, 'operations'),
      clock: service.clock,
      log: service.log.child({ owner: name }),
    });
    close = serveVerbs({ options, status, operations, signal: ending.signal });
    state = 'serving';
    service.mirror.register(name, () => options.stores.flatMap((store) => store.reports()));
    service.background(
      `heartbeat of ${name}`,
      beat({ service, signal: ending.signal, announce, settle: operations.settle }),
    );
    service.onStop(`drain ${name}`, drain);
    announce();
  }

  async function drain(): Promise<void> {
    if (state !== 'serving') return;
    state = 'draining';
    announce();
    await close?.(service.clock.timeout(DRAIN_MS));
    ending.abort(new Failure('unavailable', `${name} is stopping`));
  }

  return { name, epoch, serve, announce, drain };
}

/** Once a second: the owner's status, and the operations that are to be kept or forgotten. */
async function beat(options: {
  readonly service: Service;
  readonly signal: AbortSignal;
  readonly announce: () => void;
  readonly settle: () => Promise<void>;
}): Promise<void> {
  const { service, signal } = options;
  while (!signal.aborted) {
    try {
      await service.clock.sleep(HEARTBEAT_INTERVAL_MS, signal);
    } catch {
      return;
    }
    options.announce();
    try {
      await options.settle();
    } catch (error) {
      // A full disk, say: the answers stay in memory and are tried again.
      service.log.warn({ error }, 'finished operations could not be kept on disk');
    }
  }
}

/** Subscribes to every verb of the kind and to discovery; returns what undoes it, waiting for what runs. */
function serveVerbs<K extends OwnerKind>(setting: {
  readonly options: OwnerOptions<K> & { readonly epoch: bigint };
  readonly status: () => OwnerStatus;
  readonly operations: Operations;
  readonly signal: AbortSignal;
}): (signal: AbortSignal) => Promise<void> {
  const { options, operations } = setting;
  const { service, name } = options;
  const aborting = new AbortController();
  const server = createVerbServer({
    service,
    owner: name,
    stores: options.stores,
    operations,
    signal: joinSignals([setting.signal, aborting.signal]).signal,
  });
  const inventory: VerbHandler<'inventory'> = async (request) =>
    inventoryPage({
      reports: options.stores.flatMap((store) => store.reports()),
      pageToken: request.pageToken,
      status: setting.status(),
    });
  const acknowledge: VerbHandler<'acknowledge-operation'> = async ({ operationId }) => {
    const known = await operations.acknowledge(operationId);
    if (known) options.onAcknowledged?.(operationId);
    return {};
  };
  const chassisVerbs = { inventory, 'acknowledge-operation': acknowledge };
  const table = { ...options.verbs, ...chassisVerbs } as Readonly<Record<string, ServedVerb>>;
  const verbs = (Object.keys(VERBS) as VerbName[]).filter((verb) => table[verb] !== undefined);
  const endpoints = verbs.map((verb) => ({
    name: verb,
    subject: verbSubject(service.bus.node, name, verb),
    stats: createEndpointStats(),
  }));
  const open = endpoints.map((endpoint) => {
    const handler = table[endpoint.name];
    if (handler === undefined) throw new Error(`${name} lacks a handler of ${endpoint.name}`);
    return service.bus.serve(
      endpoint.subject,
      server.serve(endpoint.name, handler, endpoint.stats),
    );
  });
  open.push(
    registerMicroService(service.bus, {
      name,
      id: `${service.instanceId}-${name.replaceAll('.', '-')}`,
      version: service.version,
      description: `Owner ${name} of node ${service.bus.node}`,
      metadata: {
        owner: name,
        service: service.name,
        node: service.bus.node,
        epoch: String(options.epoch),
        ...(name.startsWith('runtime.') ? { handler: name.slice('runtime.'.length) } : {}),
      },
      endpoints,
      startedAtNs: service.clock.nowNs(),
    }),
  );
  return async (limit) => {
    for (const one of open) one.close();
    await operations.idle(limit);
    aborting.abort(new Failure('unavailable', `${name} is stopping`));
    await operations.idle(service.clock.timeout(1_000));
    await operations.settle();
  };
}

export type { Answer };
