// Redis: the reported state, never the only copy. Nothing here blocks or fails a verb.

import { join } from 'node:path';
import { ObjectReport } from '@cribus/contracts/gen/node/v1/records.ts';
import { type OwnerName, subjectToken } from '@cribus/contracts/subjects.ts';
import type { Clock } from '@cribus/host/clock.ts';
import { readFileIfExists } from '@cribus/host/files.ts';
import { Redis } from 'ioredis';
import type { Logger } from './log.ts';

export interface StateMirror {
  /** Registers an owner's full set, rewritten whole whenever Redis comes back or was emptied. */
  register(owner: OwnerName, snapshot: () => ObjectReport[]): void;
  /** Coalesced per object; the latest wins. */
  report(report: ObjectReport): void;
  /** What Redis holds of an owner; `complete` only after the owner wrote its whole set. Undefined when Redis does not answer in time. */
  read(
    owner: OwnerName,
    signal: AbortSignal,
  ): Promise<{ readonly complete: boolean; readonly objects: ObjectReport[] } | undefined>;
  connected(): boolean;
}

export interface MirrorOptions {
  /** `redis://…` or `unix:///path`; empty: nothing is mirrored, and nothing can be read. */
  readonly url: string;
  /** Holds `<service>.redis` with the password of the user that has the service's name. */
  readonly credentialsDirectory: string;
  readonly service: string;
  readonly node: string;
  /** New at each start: part of what marks a set complete, so that a successor writes its own. */
  readonly instanceId: string;
  readonly clock: Clock;
  readonly log: Logger;
}

/** Reports are gathered for so long, and written in one pipeline. */
const FLUSH_INTERVAL_MS = 50;
/** So often it is checked that our set is still there: FLUSHALL tells nobody. */
const CHECK_INTERVAL_MS = 2_000;
const COMMAND_TIMEOUT_MS = 5_000;
const RECONNECT_WAIT_MS_MAX = 1_000;

interface Mirrored {
  readonly snapshot: () => ObjectReport[];
  /** By object id; at most one entry each, and none while the whole set is to be written anyway. */
  readonly pending: Map<string, ObjectReport>;
  /** False until the whole set was written over the present connection. */
  whole: boolean;
}

interface State {
  readonly redis: Redis;
  readonly options: MirrorOptions;
  readonly owners: Map<OwnerName, Mirrored>;
  readonly mark: string;
  ready: boolean;
}

/** Where an owner's objects are: a hash from object id to ObjectReport, and the mark of a whole set. */
export function mirrorKeys(node: string, owner: OwnerName) {
  const prefix = `cribus:${subjectToken(node)}:${owner}`;
  return { objects: `${prefix}:objects`, complete: `${prefix}:complete` };
}

/** Connects in the background, for as long as it takes. */
export async function createMirror(
  options: MirrorOptions,
): Promise<StateMirror & { close(): void }> {
  if (options.url === '') return NO_MIRROR;
  const state: State = {
    redis: await createRedis(options),
    options,
    owners: new Map(),
    mark: options.instanceId,
    ready: false,
  };
  const ending = new AbortController();
  let dirty = () => {};
  watch(state, () => dirty());

  const loop = async () => {
    let checkedMs = 0;
    while (!ending.signal.aborted) {
      const changed = new Promise<void>((resolve) => {
        dirty = resolve;
      });
      if (!needsFlush(state)) {
        await Promise.race([changed, options.clock.sleep(CHECK_INTERVAL_MS, ending.signal)]);
      }
      await options.clock.sleep(FLUSH_INTERVAL_MS, ending.signal);
      if (!state.ready) {
        await Promise.race([changed, options.clock.sleep(CHECK_INTERVAL_MS, ending.signal)]);
        continue;
      }
      const check = options.clock.monotonicMs() - checkedMs >= CHECK_INTERVAL_MS;
      if (check) checkedMs = options.clock.monotonicMs();
      for (const [owner, mirrored] of state.owners) await flush(state, owner, mirrored, check);
    }
  };
  loop().catch((error: unknown) => {
    if (!ending.signal.aborted) options.log.error({ error }, 'bug: mirroring to Redis ended');
  });

  return {
    register(owner, snapshot) {
      state.owners.set(owner, { snapshot, pending: new Map(), whole: false });
      dirty();
    },
    report(report) {
      const mirrored = state.owners.get(report.owner as OwnerName);
      if (mirrored?.whole !== true) return;
      mirrored.pending.set(report.id, report);
      dirty();
    },
    read: (owner, signal) => readOwner(state, owner, signal),
    connected: () => state.ready,
    close() {
      ending.abort();
      state.redis.disconnect();
    },
  };
}

const NO_MIRROR: StateMirror & { close(): void } = {
  register: () => {},
  report: () => {},
  read: async () => undefined,
  connected: () => false,
  close: () => {},
};

async function createRedis(options: MirrorOptions): Promise<Redis> {
  const file = join(options.credentialsDirectory, `${options.service}.redis`);
  const password =
    options.credentialsDirectory === ''
      ? undefined
      : (await readFileIfExists(file))?.toString('utf8').trim();
  const common = {
    ...(password === undefined ? {} : { username: options.service, password }),
    connectionName: options.service,
    enableOfflineQueue: false,
    autoResendUnfulfilledCommands: false,
    maxRetriesPerRequest: 0,
    commandTimeout: COMMAND_TIMEOUT_MS,
    // INFO needs a permission that we don't; a Redis that still loads refuses the first write.
    enableReadyCheck: false,
    disableClientInfo: true,
    protocol: 2 as const,
    retryStrategy: (times: number) => Math.min(50 * times, RECONNECT_WAIT_MS_MAX),
  };
  return options.url.startsWith('unix://')
    ? new Redis({ ...common, path: options.url.slice('unix://'.length) })
    : new Redis(options.url, common);
}

function watch(state: State, onReady: () => void): void {
  const { redis, options } = state;
  let said = '';
  redis.on('ready', () => {
    said = '';
    state.ready = true;
    for (const mirrored of state.owners.values()) startOver(mirrored);
    options.log.info({}, 'connected to Redis');
    onReady();
  });
  redis.on('close', () => {
    state.ready = false;
    for (const mirrored of state.owners.values()) startOver(mirrored);
  });
  redis.on('error', (error: Error) => {
    if (error.message !== said) {
      options.log.warn({ reason: error.message }, 'Redis can not be reached; still trying');
    }
    said = error.message;
  });
}

function startOver(mirrored: Mirrored): void {
  mirrored.whole = false;
  mirrored.pending.clear();
}

function needsFlush(state: State): boolean {
  if (!state.ready) return false;
  return [...state.owners.values()].some((one) => !one.whole || one.pending.size > 0);
}

async function flush(
  state: State,
  owner: OwnerName,
  mirrored: Mirrored,
  check: boolean,
): Promise<void> {
  const { redis, options, mark } = state;
  const keys = mirrorKeys(options.node, owner);
  try {
    if (check && mirrored.whole && (await redis.get(keys.complete)) !== mark) {
      options.log.warn({ owner }, 'Redis lost our state; writing it again');
      startOver(mirrored);
    }
    if (!mirrored.whole) await writeWhole(state, keys, mirrored);
    else if (mirrored.pending.size > 0) await writePending(state, keys, mirrored);
  } catch (error) {
    startOver(mirrored);
    options.log.warn({ owner, error }, 'state could not be written to Redis; it will be again');
  }
}

/** In one transaction, so that a reader sees either set, never a part. */
async function writeWhole(
  state: State,
  keys: ReturnType<typeof mirrorKeys>,
  mirrored: Mirrored,
): Promise<void> {
  // From here on changes are gathered again: what the snapshot has already is only written twice.
  mirrored.pending.clear();
  mirrored.whole = true;
  const transaction = state.redis.multi().del(keys.objects);
  for (const report of mirrored.snapshot())
    transaction.hset(keys.objects, report.id, encode(report));
  transaction.set(keys.complete, state.mark);
  raise(await transaction.exec());
}

async function writePending(
  state: State,
  keys: ReturnType<typeof mirrorKeys>,
  mirrored: Mirrored,
): Promise<void> {
  const pipeline = state.redis.pipeline();
  for (const report of mirrored.pending.values()) {
    if (report.deleted) pipeline.hdel(keys.objects, report.id);
    else pipeline.hset(keys.objects, report.id, encode(report));
  }
  mirrored.pending.clear();
  raise(await pipeline.exec());
}

function encode(report: ObjectReport): Buffer {
  return Buffer.from(ObjectReport.encode(report).finish());
}

function raise(results: readonly [Error | null, unknown][] | null): void {
  if (results === null) throw new Error('the transaction was discarded');
  for (const [error] of results) if (error !== null) throw error;
}

async function readOwner(
  state: State,
  owner: OwnerName,
  signal: AbortSignal,
): ReturnType<StateMirror['read']> {
  if (!state.ready || signal.aborted) return undefined;
  const keys = mirrorKeys(state.options.node, owner);
  const aborted = new Promise<undefined>((resolve) => {
    signal.addEventListener('abort', () => resolve(undefined), { once: true });
  });
  try {
    const read = state.redis.multi().getBuffer(keys.complete).hvalsBuffer(keys.objects).exec();
    const results = await Promise.race([read, aborted]);
    if (results === undefined || results === null) return undefined;
    raise(results);
    const [[, complete], [, values]] = results as [[null, Buffer | null], [null, Buffer[]]];
    return { complete: complete !== null, objects: values.map((one) => ObjectReport.decode(one)) };
  } catch (error) {
    state.options.log.warn({ owner, error }, 'state could not be read from Redis');
    return undefined;
  }
}
