// Keeps the view true: one loop per owner that primes it (Redis, then an inventory over the bus, at
// last the records on disk), and takes another inventory whenever something may have been missed.
//
//   unprimed --Redis complete / inventory / disk--> primed --gap, epoch, reconnect--> inventory again

import { askPages } from '@cribus/chassis/pages.ts';
import { Failure } from '@cribus/contracts/failure.ts';
import type { ObjectReport, OwnerStatus } from '@cribus/contracts/gen/node/v1/records.ts';
import type { InventoryResponse } from '@cribus/contracts/gen/node/v1/verbs.ts';
import {
  IMAGE_SERVICE,
  type OwnerName,
  runtimeOwner,
  SANDBOX_MANAGER,
} from '@cribus/contracts/subjects.ts';
import type { Clock } from '@cribus/host/clock.ts';
import { withJoinedSignal } from '@cribus/host/joined-signals.ts';
import type { NodeView } from './node-view.ts';
import type { Owners } from './owners.ts';

/** Redis must not hold a start back. */
const REDIS_BUDGET_MS = 1_000;
const INVENTORY_BUDGET_MS = 2_500;
/** An owner that is silent for so long is read from disk. */
const DISK_AFTER_MS = 3_000;
const RETRY_MS = 500;
/** A silent owner is asked again this often; its next heartbeat wakes the loop before. */
const RETRY_SILENT_MS = 10_000;

/** Where the view learns from; fakes in tests. */
export interface FeedSources {
  /** What Redis holds; undefined when it does not answer. */
  readonly mirror: (
    owner: OwnerName,
    signal: AbortSignal,
  ) => Promise<
    { readonly complete: boolean; readonly objects: readonly ObjectReport[] } | undefined
  >;
  readonly inventory: (
    owner: OwnerName,
    pageToken: string,
    signal: AbortSignal,
  ) => Promise<InventoryResponse>;
  readonly disk: (owner: OwnerName, signal: AbortSignal) => Promise<readonly ObjectReport[]>;
}

export interface FeedLog {
  debug(fields: object, message: string): void;
  info(fields: object, message: string): void;
  warn(fields: object, message: string): void;
}

export interface Feed {
  onReport(report: ObjectReport): void;
  onOwner(status: OwnerStatus): void;
  onReconnect(): void;
  /** Owners that the view still has to hear from. */
  missing(): OwnerName[];
  /** Raises unavailable naming them. */
  requirePrimed(): void;
  /** How each owner was first heard, and its epoch, for verbose Status. */
  origins(): ReadonlyMap<OwnerName, string>;
}

interface OwnerState {
  readonly name: OwnerName;
  primedBy: 'redis' | 'inventory' | 'disk' | undefined;
  epoch: bigint;
  /** Last report seen of this epoch; undefined until an inventory tells. */
  sequence: bigint | undefined;
  wanted: boolean;
  wake: () => void;
}

export interface FeedOptions {
  readonly view: NodeView;
  readonly owners: Owners;
  readonly clock: Clock;
  readonly sources: FeedSources;
  readonly log: FeedLog;
  readonly signal: AbortSignal;
  readonly configuredHandlers: readonly string[];
  /** Runs a loop for the life of the service. */
  readonly background: (name: string, work: Promise<unknown>) => void;
}

export function createFeed(options: FeedOptions): Feed {
  const { view, owners } = options;
  const states = new Map<OwnerName, OwnerState>();
  const always = [
    IMAGE_SERVICE,
    SANDBOX_MANAGER,
    ...options.configuredHandlers.map((handler) => runtimeOwner(handler)),
  ];

  const follow = (name: OwnerName): OwnerState => {
    const known = states.get(name);
    if (known !== undefined) return known;
    const state: OwnerState = {
      name,
      primedBy: undefined,
      epoch: 0n,
      sequence: undefined,
      wanted: true,
      wake: () => undefined,
    };
    states.set(name, state);
    options.background(`view of ${name}`, keep(state, options));
    return state;
  };
  for (const name of always) follow(name);

  const wantInventory = (state: OwnerState): void => {
    state.wanted = true;
    state.wake();
  };
  const missing = (): OwnerName[] => {
    const required = new Set(always);
    for (const handler of view.handlersInUse()) required.add(runtimeOwner(handler));
    return [...required].filter((name) => follow(name).primedBy === undefined);
  };

  return {
    onReport(report) {
      const state = follow(report.owner as OwnerName);
      const epoch = report.version?.epoch ?? 0n;
      if (noteProgress(state, { epoch, sequence: report.sequence, isReport: true })) {
        wantInventory(state);
      }
      view.apply(report);
    },
    onOwner(status) {
      const wasAlive = owners.isAlive(status.owner as OwnerName);
      owners.heard(status);
      const state = follow(status.owner as OwnerName);
      const progress = { epoch: status.epoch, sequence: status.sequence, isReport: false };
      if (noteProgress(state, progress)) wantInventory(state);
      if (!wasAlive) state.wake();
    },
    onReconnect() {
      owners.busReturned();
      for (const state of states.values()) wantInventory(state);
    },
    missing,
    requirePrimed() {
      const names = missing();
      if (names.length === 0) return;
      throw new Failure(
        'unavailable',
        `the state of this node is not known yet: waiting for ${names.join(', ')}`,
      );
    },
    origins: () =>
      new Map([...states.values()].map((state) => [state.name, state.primedBy ?? 'nothing yet'])),
  };
}

/**
 * Takes note of an epoch and a sequence number; true when something was missed. A report counts
 * itself, a heartbeat only tells the last number that was given.
 */
export function noteProgress(
  state: { epoch: bigint; sequence: bigint | undefined },
  news: { readonly epoch: bigint; readonly sequence: bigint; readonly isReport: boolean },
): boolean {
  if (news.epoch < state.epoch) return false;
  if (news.epoch > state.epoch) {
    state.epoch = news.epoch;
    state.sequence = undefined;
    return true;
  }
  // An inventory is on its way, and will tell.
  if (state.sequence === undefined || news.sequence <= state.sequence) return false;
  const missed = news.isReport
    ? news.sequence > state.sequence + 1n
    : news.sequence > state.sequence;
  state.sequence = news.sequence;
  return missed;
}

/** The loop of one owner. */
async function keep(state: OwnerState, options: FeedOptions): Promise<void> {
  const { clock, signal } = options;
  const others = Promise.all([primeFromRedis(state, options), primeFromDisk(state, options)]);
  while (!signal.aborted) {
    const woken = new Promise<void>((resolve) => {
      state.wake = resolve;
    });
    let retryMs: number | undefined;
    if (state.wanted) {
      state.wanted = false;
      if (!(await takeInventory(state, options))) {
        state.wanted = true;
        const silent = !options.owners.isAlive(state.name);
        retryMs = silent && state.primedBy !== undefined ? RETRY_SILENT_MS : RETRY_MS;
      }
    }
    await pause(woken, { clock, ms: retryMs, signal });
  }
  await others;
}

async function pause(
  woken: Promise<void>,
  options: { readonly clock: Clock; readonly ms: number | undefined; readonly signal: AbortSignal },
): Promise<void> {
  const ended = new AbortController();
  await withJoinedSignal([options.signal, ended.signal], async (signal) => {
    // Without a reason to retry only a wake or the end of the service matter.
    const sleep = options.clock.sleep(options.ms ?? 60_000, signal);
    await Promise.race([woken, sleep.catch(() => undefined)]);
    ended.abort();
  });
}

async function primeFromRedis(state: OwnerState, options: FeedOptions): Promise<void> {
  const limits = [options.signal, options.clock.timeout(REDIS_BUDGET_MS)];
  try {
    const snapshot = await withJoinedSignal(limits, (signal) =>
      options.sources.mirror(state.name, signal),
    );
    // After an inventory a snapshot could only bring back what is gone.
    if (snapshot?.complete !== true || state.primedBy !== undefined) return;
    for (const report of snapshot.objects) options.view.apply(report);
    primed(state, 'redis', options, snapshot.objects.length);
  } catch (error) {
    options.log.info({ owner: state.name, error }, 'Redis has no snapshot of this owner');
  }
}

/** True when a whole inventory was applied; anything it lacks is dropped. */
async function takeInventory(state: OwnerState, options: FeedOptions): Promise<boolean> {
  const { view, clock, sources } = options;
  const since = view.order();
  const present = new Set<string>();
  let first: OwnerStatus | undefined;
  const ask = (pageToken: string) =>
    withJoinedSignal([options.signal, clock.timeout(INVENTORY_BUDGET_MS)], (signal) =>
      sources.inventory(state.name, pageToken, signal),
    );
  try {
    for await (const answer of askPages(ask)) {
      first ??= answer.status;
      // Restarted between two pages: they belong to different inventories.
      if (answer.status?.epoch !== first?.epoch) return false;
      for (const report of answer.objects) {
        present.add(report.id);
        view.apply(report);
      }
    }
  } catch (error) {
    if (!options.signal.aborted) {
      const why = error instanceof Error ? error.message : String(error);
      options.log.debug({ owner: state.name, why }, 'no inventory of this owner yet');
    }
    return false;
  }
  if (first === undefined || first.epoch < state.epoch) return false;
  const dropped = view.dropMissing(state.name, present, since);
  if (first.epoch > state.epoch) state.sequence = undefined;
  state.epoch = first.epoch;
  // Reports that came while the pages did are counted already.
  if (state.sequence === undefined || first.sequence > state.sequence) {
    state.sequence = first.sequence;
  }
  options.owners.heard(first);
  primed(state, 'inventory', options, present.size);
  if (dropped > 0) options.log.info({ owner: state.name, dropped }, 'dropped what is gone');
  return true;
}

/** Beside the loop: neither a slow inventory nor a slow disk holds the other back. */
async function primeFromDisk(state: OwnerState, options: FeedOptions): Promise<void> {
  const { clock, signal } = options;
  let waitMs = DISK_AFTER_MS;
  while (state.primedBy === undefined) {
    try {
      await clock.sleep(waitMs, signal);
      if (state.primedBy !== undefined) return;
      const reports = await options.sources.disk(state.name, signal);
      if (state.primedBy !== undefined) return;
      for (const report of reports) options.view.apply(report);
      primed(state, 'disk', options, reports.length);
    } catch (error) {
      if (signal.aborted) return;
      options.log.warn({ owner: state.name, error }, "this owner's records could not be read");
      waitMs = RETRY_MS;
    }
  }
}

function primed(
  state: OwnerState,
  by: NonNullable<OwnerState['primedBy']>,
  options: FeedOptions,
  objects: number,
): void {
  if (state.primedBy === undefined) {
    options.log.info(
      { owner: state.name, by, objects },
      'the view knows the objects of this owner',
    );
  }
  state.primedBy = by;
}
