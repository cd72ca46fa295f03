// Which owners there are, when each was last heard, and what each last said of itself.

import { Failure } from '@cribus/contracts/failure.ts';
import type { OwnerStatus } from '@cribus/contracts/gen/node/v1/records.ts';
import { type OwnerName, runtimeOwner } from '@cribus/contracts/subjects.ts';
import type { Clock } from '@cribus/host/clock.ts';

/** Five missed heartbeats: longer than a restart takes. */
export const SILENCE_MAX_MS = 5_000;

export interface Owners {
  /** A heartbeat, or the status of an inventory. */
  heard(status: OwnerStatus): void;
  /** Silence while the bus was away says nothing of the owners; counts it anew. */
  busReturned(): void;
  status(owner: OwnerName): OwnerStatus | undefined;
  statuses(): OwnerStatus[];
  isAlive(owner: OwnerName): boolean;
  /** Why the owner can't be asked; undefined when it can, or when nobody can know. */
  absence(owner: OwnerName): string | undefined;
  /** Raises unavailable with that reason. */
  requireAlive(owner: OwnerName): void;
  /** Configured handlers and those whose worker announced itself. */
  handlers(): string[];
}

interface Known {
  readonly status: OwnerStatus;
  readonly heardAtMs: number;
}

export function createOwners(options: {
  readonly clock: Clock;
  readonly busConnected: () => boolean;
  readonly configuredHandlers: readonly string[];
}): Owners {
  const { clock } = options;
  const known = new Map<OwnerName, Known>();
  let listeningSinceMs = clock.monotonicMs();

  const handlers = (): string[] => {
    const announced = [...known.values()].flatMap(({ status }) =>
      status.handler === undefined ? [] : [status.handler.name],
    );
    return [...new Set([...options.configuredHandlers, ...announced])];
  };

  const absence = (owner: OwnerName): string | undefined => {
    if (!options.busConnected()) return undefined;
    const entry = known.get(owner);
    const silentMs = clock.monotonicMs() - Math.max(entry?.heardAtMs ?? 0, listeningSinceMs);
    const handler = handlers().find((name) => runtimeOwner(name) === owner);
    const who = handler === undefined ? owner : `handler "${handler}"`;
    const its = handler === undefined ? 'it' : 'its worker';
    if (entry?.status.stopping === true) return `${who} is unavailable: ${its} is stopping`;
    if (silentMs <= SILENCE_MAX_MS) return undefined;
    const seconds = Math.round((clock.monotonicMs() - (entry?.heardAtMs ?? 0)) / 1000);
    const since = entry === undefined ? ' since the gateway started' : ` for ${seconds} s`;
    return `${who} is unavailable: ${its} has not been heard from${since}`;
  };

  return {
    heard(status) {
      known.set(status.owner as OwnerName, { status, heardAtMs: clock.monotonicMs() });
    },
    busReturned() {
      listeningSinceMs = clock.monotonicMs();
    },
    status: (owner) => known.get(owner)?.status,
    statuses: () => [...known.values()].map((entry) => entry.status),
    isAlive: (owner) => known.has(owner) && absence(owner) === undefined,
    absence,
    requireAlive(owner) {
      const why = absence(owner);
      if (why !== undefined) throw new Failure('unavailable', why);
    },
    handlers,
  };
}
