// The only way in which an existing record changes: read, changed and written as one step, because
// not every change waits for the sandbox's lock (a worker reports an exit during a stop).

import type { ObjectReport, SandboxRecord } from '@cribus/contracts/gen/node/v1/records.ts';
import type { SandboxDeps } from './sandbox-deps.ts';

export interface SandboxUpdate {
  readonly id: string;
  /** The new fields; undefined leaves the record as it is. */
  readonly change: (current: SandboxRecord) => Partial<SandboxRecord> | undefined;
  readonly changed?: ObjectReport[];
}

/** Answers the record as it is then; undefined where there is none any more. */
export function updateSandbox(
  deps: Pick<SandboxDeps, 'store' | 'updates'>,
  update: SandboxUpdate,
): Promise<SandboxRecord | undefined> {
  return deps.updates.run(update.id, async () => {
    const current = deps.store.get(update.id);
    const fields = current === undefined ? undefined : update.change(current);
    if (current === undefined || fields === undefined) return current;
    const options = update.changed === undefined ? {} : { changed: update.changed };
    return deps.store.put({ ...current, ...fields }, options);
  });
}
