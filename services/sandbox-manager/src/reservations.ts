// Who may create a sandbox under a key (namespace, name, uid, attempt): a retry joins the first
// call or gets its answer, another request is refused (architecture: a retried call joins).

import { orAborted } from '@cribus/chassis/abort.ts';
import { Failure } from '@cribus/contracts/failure.ts';
import { SandboxPhase, type SandboxRecord } from '@cribus/contracts/gen/node/v1/records.ts';
import { MEMORY_OF_THE_PAST_MS } from '@cribus/contracts/subjects.ts';
import { sandboxKey } from './sandbox-plan.ts';

export interface CreationRequest {
  readonly key: string;
  readonly operationId: string;
  readonly requestHash: string;
  readonly signal: AbortSignal;
}

export interface Reservations {
  /**
   * Answers the sandbox that this request stands for: `create` makes it, unless it is being made
   * or was made by the same request. Raises conflict while another request makes or removes one
   * with this key, already_exists when there is one.
   */
  claim(
    request: CreationRequest,
    create: () => Promise<SandboxRecord>,
  ): Promise<{ readonly record: SandboxRecord; readonly created: boolean }>;
  /** What frees the key again is under way (a crash left it half made): a claim waits for it. */
  repairing(key: string, repair: Promise<unknown>): void;
}

interface Creation {
  readonly requestHash: string;
  readonly record: Promise<SandboxRecord>;
}

export function createReservations(options: {
  /** All records, to find one by its key. */
  readonly records: () => readonly SandboxRecord[];
  readonly nowNs: () => bigint;
}): Reservations {
  const creations = new Map<string, Creation>();
  const repairs = new Map<string, Promise<unknown>>();

  return {
    async claim(request, create) {
      const { key } = request;
      for (let repair = repairs.get(key); repair !== undefined; repair = repairs.get(key)) {
        await orAborted(repair, request.signal);
      }
      const running = creations.get(key);
      if (running !== undefined) {
        if (running.requestHash !== request.requestHash) {
          throw new Failure('conflict', `another request is creating the sandbox ${key}`);
        }
        return { record: await orAborted(running.record, request.signal), created: false };
      }
      const existing = options.records().find((record) => keyOf(record) === key);
      if (existing !== undefined) {
        return { record: judge(existing, request, options.nowNs()), created: false };
      }
      const record = create();
      creations.set(key, { requestHash: request.requestHash, record });
      try {
        return { record: await record, created: true };
      } finally {
        creations.delete(key);
      }
    },
    repairing(key, repair) {
      const settled = repair
        .catch(() => undefined)
        .finally(() => {
          if (repairs.get(key) === settled) repairs.delete(key);
        });
      repairs.set(key, settled);
    },
  };
}

export function keyOf(record: SandboxRecord): string {
  return sandboxKey(record.config?.metadata);
}

/** The finished sandbox, where this request is the one that made it and its answer was lost. */
export function judge(
  existing: SandboxRecord,
  request: Pick<CreationRequest, 'operationId' | 'requestHash'>,
  nowNs: bigint,
): SandboxRecord {
  const { operation, phase, id } = existing;
  const finished = operation !== undefined && operation.finishedAtNs > 0n;
  if (finished && operation.operationId === request.operationId) return existing;
  const recent =
    finished && nowNs - operation.finishedAtNs < BigInt(MEMORY_OF_THE_PAST_MS) * 1_000_000n;
  if (
    recent &&
    !operation.acknowledged &&
    operation.requestHash === request.requestHash &&
    phase === SandboxPhase.READY
  ) {
    return existing;
  }
  if (phase === SandboxPhase.REMOVING) {
    throw new Failure('conflict', `sandbox ${id} with this metadata is being removed`);
  }
  throw new Failure('already_exists', `sandbox ${id} has this metadata: ${keyOf(existing)}`);
}
