// Counts an owner's reports within this process, in the order in which they are published: a gap
// tells a subscriber that it missed one.

import type { OwnerName } from '@cribus/contracts/subjects.ts';
import type { Bus } from './bus.ts';

const counters = new WeakMap<Bus, Map<OwnerName, bigint>>();

/** The number for the next report; call it only where the report is published at once. */
export function nextSequence(bus: Bus, owner: OwnerName): bigint {
  let ofBus = counters.get(bus);
  if (ofBus === undefined) {
    ofBus = new Map();
    counters.set(bus, ofBus);
  }
  const next = (ofBus.get(owner) ?? 0n) + 1n;
  ofBus.set(owner, next);
  return next;
}

/** The number of the last report; 0 before the first. */
export function lastSequence(bus: Bus, owner: OwnerName): bigint {
  return counters.get(bus)?.get(owner) ?? 0n;
}
