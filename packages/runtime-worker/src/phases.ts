// The state machine of a container, and how its records are changed: one change at a time for one
// id, each from what is recorded at that moment.

import type { KeyedLock } from '@cribus/chassis/queue.ts';
import type { RecordStore } from '@cribus/chassis/records.ts';
import {
  ContainerPhase,
  type ContainerRecord,
  type ObjectReport,
} from '@cribus/contracts/gen/node/v1/records.ts';

//   CREATING ──► CREATED ──► RUNNING ──► EXITED ──► REMOVING ──► (gone)
//      │            └───────────────────────▲           ▲
//      └── undone, or after a crash ────────────────────┘
//
// UNKNOWN is what an undo that failed leaves: it can only be stopped and removed.
const NEXT: Readonly<Record<ContainerPhase, readonly ContainerPhase[]>> = {
  [ContainerPhase.CREATING]: [
    ContainerPhase.CREATED,
    ContainerPhase.UNKNOWN,
    ContainerPhase.REMOVING,
  ],
  [ContainerPhase.CREATED]: [
    ContainerPhase.RUNNING,
    ContainerPhase.EXITED,
    ContainerPhase.UNKNOWN,
    ContainerPhase.REMOVING,
  ],
  [ContainerPhase.RUNNING]: [
    ContainerPhase.EXITED,
    ContainerPhase.UNKNOWN,
    ContainerPhase.REMOVING,
  ],
  [ContainerPhase.EXITED]: [ContainerPhase.REMOVING],
  [ContainerPhase.UNKNOWN]: [ContainerPhase.EXITED, ContainerPhase.REMOVING],
  [ContainerPhase.REMOVING]: [],
};

/** True if a record may go from one phase to another; staying is always allowed. */
export function mayMove(from: ContainerPhase, to: ContainerPhase): boolean {
  return from === to || NEXT[from].includes(to);
}

/** True while the container has a process. */
export function isLive(record: ContainerRecord): boolean {
  return record.phase === ContainerPhase.CREATED || record.phase === ContainerPhase.RUNNING;
}

const NAMES = Object.fromEntries(
  Object.entries(ContainerPhase).map(([name, value]) => [value, name]),
);

/** The phase as a word, for messages. */
export function phaseName(phase: ContainerPhase): string {
  return NAMES[phase] ?? String(phase);
}

/** Changes of container records, serialised by id. */
export interface Changes {
  /**
   * Applies `change` to the record as it is now, unless it answers undefined; the answer is the
   * record afterwards, undefined when there is none. A move that the machine forbids is a bug.
   */
  apply(
    id: string,
    change: (record: ContainerRecord) => Partial<ContainerRecord> | undefined,
    options?: { readonly changed?: ObjectReport[] },
  ): Promise<ContainerRecord | undefined>;
}

export function createChanges(store: RecordStore<ContainerRecord>, lock: KeyedLock): Changes {
  return {
    apply: (id, change, options) =>
      lock.run(id, async () => {
        const record = store.get(id);
        if (record === undefined) return undefined;
        const patch = change(record);
        if (patch === undefined) return record;
        const next = { ...record, ...patch };
        if (!mayMove(record.phase, next.phase)) {
          throw new Error(
            `container ${id} can't go from ${phaseName(record.phase)} to ${phaseName(next.phase)}`,
          );
        }
        return await store.put(next, options);
      }),
  };
}

/** What an undo could not take away: listed with the reason, and to be removed by its caller. */
export async function keepAsUnknown(
  worker: { readonly changes: Changes },
  id: string,
  options: { readonly why: string; readonly error: unknown; readonly changed?: ObjectReport[] },
): Promise<void> {
  const { why, error, changed } = options;
  const said = error instanceof Error ? error.message : String(error);
  await worker.changes.apply(
    id,
    ({ phase }) =>
      phase === ContainerPhase.CREATING || phase === ContainerPhase.CREATED
        ? {
            phase: ContainerPhase.UNKNOWN,
            reason: 'NotUndone',
            message: `${why} and could not be undone: ${said}`,
          }
        : undefined,
    changed === undefined ? {} : { changed },
  );
}
