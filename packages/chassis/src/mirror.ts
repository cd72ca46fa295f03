// Redis: the reported state, never the only copy. Nothing here blocks or fails a verb.

import type { ObjectReport } from '@cribus/contracts/gen/node/v1/records.ts';
import type { OwnerName } from '@cribus/contracts/subjects.ts';

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
