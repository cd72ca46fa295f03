// Operations of an owner by their id: a second ask joins the one that runs, or gets the answer that
// was kept, in memory and then on disk, until its asker acknowledged it or ten minutes went by.

import { mkdir, stat, unlink } from 'node:fs/promises';
import { join } from 'node:path';
import { Failure } from '@cribus/contracts/failure.ts';
import { MEMORY_OF_THE_PAST_MS } from '@cribus/contracts/subjects.ts';
import type { Clock } from '@cribus/host/clock.ts';
import { isErrno } from '@cribus/host/errno.ts';
import { listDirectory, readFileIfExists, writeFileAtomic } from '@cribus/host/files.ts';
import type { Logger } from './log.ts';

/** A finished answer as it goes over the bus: headers of a failure, or the encoded Reply. */
export interface FinishedReply {
  readonly headers: Readonly<Record<string, string>>;
  readonly data: Uint8Array;
}

export interface OperationAsk {
  readonly operationId: string;
  readonly verb: string;
  readonly requestHash: string;
  /** Mutating verbs are remembered after their end; every one is joined while it runs. */
  readonly remember: boolean;
}

export interface Operations {
  /** Runs, joins, or answers again. Work never rejects: a failure is a reply too. */
  run(ask: OperationAsk, work: () => Promise<FinishedReply>): Promise<FinishedReply>;
  /** The asker has its answer: forgets it. False when it wasn't known. */
  acknowledge(operationId: string): Promise<boolean>;
  /** How many run now. */
  running(): number;
  /** Resolves when none runs, or when the signal aborts. */
  idle(signal: AbortSignal): Promise<void>;
  /** Writes what is remembered only in memory so far; drops what is too old. Called each second. */
  settle(): Promise<void>;
}

/** At once per owner; a node's kubelet runs some tens. */
const RUNNING_MAX = 1_000;
/** Kept answers; the oldest goes first. */
const REMEMBERED_MAX = 4_096;
/** An operation id is a file name: our own are UUIDs, or an object id with a suffix. */
const OPERATION_ID = /^[A-Za-z0-9_][A-Za-z0-9_.-]{0,199}$/;

interface Remembered {
  readonly verb: string;
  readonly requestHash: string;
  readonly finishedAtNs: bigint;
  /** Absent once it is on disk. */
  reply: FinishedReply | undefined;
}

interface Running {
  readonly verb: string;
  readonly requestHash: string;
  readonly reply: Promise<FinishedReply>;
}

interface State {
  readonly directory: string;
  readonly clock: Clock;
  readonly log: Logger;
  readonly running: Map<string, Running>;
  readonly remembered: Map<string, Remembered>;
}

/** Opens the memory of an owner's operations in `directory`, which is made where it is absent. */
export async function openOperations(options: {
  readonly directory: string;
  readonly clock: Clock;
  readonly log: Logger;
}): Promise<Operations> {
  const state: State = { ...options, running: new Map(), remembered: new Map() };
  await mkdir(options.directory, { recursive: true, mode: 0o700 });
  await loadRemembered(state);
  return {
    run: (ask, work) => runOperation(state, ask, work),
    acknowledge: (operationId) => forget(state, operationId),
    running: () => state.running.size,
    async idle(signal) {
      const ended = new Promise<void>((resolve) => {
        signal.addEventListener('abort', () => resolve(), { once: true });
      });
      while (state.running.size > 0 && !signal.aborted) {
        await Promise.race([ended, ...[...state.running.values()].map((one) => one.reply)]);
      }
    },
    settle: () => settle(state),
  };
}

async function runOperation(
  state: State,
  ask: OperationAsk,
  work: () => Promise<FinishedReply>,
): Promise<FinishedReply> {
  if (!OPERATION_ID.test(ask.operationId)) {
    throw new Failure('invalid_argument', `operation id ${JSON.stringify(ask.operationId)}`);
  }
  const running = state.running.get(ask.operationId);
  if (running !== undefined) {
    refuseOther(ask, running);
    return running.reply;
  }
  const kept = state.remembered.get(ask.operationId);
  if (kept !== undefined && ask.remember) {
    refuseOther(ask, kept);
    const reply = kept.reply ?? (await readReply(state, ask.operationId));
    if (reply !== undefined) return reply;
    // While the file was read, another ask may have begun the work.
    const begun = state.running.get(ask.operationId);
    if (begun !== undefined) return begun.reply;
  }
  if (state.running.size >= RUNNING_MAX) {
    throw new Failure('limit', `${RUNNING_MAX} operations are running already`);
  }
  const reply = work().then((finished) => {
    if (ask.remember) remember(state, ask, finished);
    state.running.delete(ask.operationId);
    return finished;
  });
  state.running.set(ask.operationId, { ...ask, reply });
  return reply;
}

function refuseOther(ask: OperationAsk, known: { verb: string; requestHash: string }): void {
  if (known.verb === ask.verb && known.requestHash === ask.requestHash) return;
  throw new Failure('conflict', `operation ${ask.operationId} was asked with another request`);
}

function remember(state: State, ask: OperationAsk, reply: FinishedReply): void {
  const { verb, requestHash, operationId } = ask;
  const finishedAtNs = state.clock.nowNs();
  state.remembered.delete(operationId);
  state.remembered.set(operationId, { verb, requestHash, finishedAtNs, reply });
}

/** Not waited for by a verb: a crash before it leaves the OperationStamp in the object's record. */
async function settle(state: State): Promise<void> {
  const oldestNs = state.clock.nowNs() - BigInt(MEMORY_OF_THE_PAST_MS) * 1_000_000n;
  let surplus = state.remembered.size - REMEMBERED_MAX;
  for (const [operationId, kept] of [...state.remembered]) {
    if (surplus > 0 || kept.finishedAtNs < oldestNs) {
      surplus -= 1;
      await forget(state, operationId);
    } else if (kept.reply !== undefined) {
      await writeReply(state, operationId, kept);
    }
  }
}

async function writeReply(state: State, operationId: string, kept: Remembered): Promise<void> {
  const { reply, verb, requestHash } = kept;
  if (reply === undefined) return;
  const head = JSON.stringify({ verb, requestHash, headers: reply.headers });
  const file = join(state.directory, operationId);
  await writeFileAtomic(file, Buffer.concat([Buffer.from(`${head}\n`), reply.data]), {
    mode: 0o600,
  });
  if (state.remembered.get(operationId) === kept) kept.reply = undefined;
  else if (!state.remembered.has(operationId)) await unlinkIfExists(file);
}

async function forget(state: State, operationId: string): Promise<boolean> {
  const kept = state.remembered.get(operationId);
  if (kept === undefined) return false;
  state.remembered.delete(operationId);
  if (kept.reply === undefined) await unlinkIfExists(join(state.directory, operationId));
  return true;
}

async function unlinkIfExists(file: string): Promise<void> {
  try {
    await unlink(file);
  } catch (error) {
    if (!isErrno(error, 'ENOENT')) throw error;
  }
}

async function loadRemembered(state: State): Promise<void> {
  const found: [string, Remembered][] = [];
  for (const name of await listDirectory(state.directory)) {
    const file = join(state.directory, name);
    const stored = OPERATION_ID.test(name) ? await readStored(state, name) : undefined;
    if (stored === undefined) {
      await unlinkIfExists(file);
      continue;
    }
    const { verb, requestHash } = stored;
    const finishedAtNs = (await stat(file, { bigint: true })).mtimeNs;
    found.push([name, { verb, requestHash, finishedAtNs, reply: undefined }]);
  }
  found.sort(([, a], [, b]) => Number(a.finishedAtNs - b.finishedAtNs));
  for (const [name, kept] of found) state.remembered.set(name, kept);
}

async function readReply(state: State, operationId: string): Promise<FinishedReply | undefined> {
  return (await readStored(state, operationId))?.reply;
}

async function readStored(
  state: State,
  operationId: string,
): Promise<{ verb: string; requestHash: string; reply: FinishedReply } | undefined> {
  const bytes = await readFileIfExists(join(state.directory, operationId));
  const end = bytes?.indexOf(0x0a) ?? -1;
  if (bytes === undefined || end < 0) return undefined;
  try {
    const { verb, requestHash, headers } = JSON.parse(bytes.toString('utf8', 0, end));
    return { verb, requestHash, reply: { headers, data: bytes.subarray(end + 1) } };
  } catch (error) {
    state.log.warn({ operationId, error }, 'a kept answer can not be read and is dropped');
    return undefined;
  }
}
