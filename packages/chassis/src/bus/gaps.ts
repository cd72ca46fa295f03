// Finds out that reports of an owner were missed: core NATS delivers at most once.

/** What both a report and an owner's status say of their place. */
export interface Place {
  readonly owner: string;
  readonly epoch: bigint;
  readonly sequence: bigint;
}

/** Remembers how far each owner's reports were seen. */
export interface GapDetector {
  /** True when a report before this one was missed. The first of an epoch must be number one. */
  report(place: Place): boolean;
  /** True when the owner has published more than was seen. */
  status(place: Place): boolean;
}

/** Owners of one node are few; more than this is a fault of somebody's, and the oldest are forgotten. */
const OWNERS_MAX = 1_000;

/**
 * Makes a detector. An owner that was never seen has no gap (its subscriber takes an inventory
 * anyway); a new epoch starts at one.
 */
export function createGapDetector(): GapDetector {
  const seen = new Map<string, { epoch: bigint; sequence: bigint }>();

  function advance(place: Place, allowed: bigint): boolean {
    const last = seen.get(place.owner);
    if (last !== undefined && place.epoch < last.epoch) return false;
    const from = last === undefined || place.epoch > last.epoch ? 0n : last.sequence;
    const missed = last !== undefined && place.sequence > from + allowed;
    seen.delete(place.owner);
    seen.set(place.owner, {
      epoch: place.epoch,
      sequence: place.sequence > from ? place.sequence : from,
    });
    const [oldest] = seen.keys();
    if (seen.size > OWNERS_MAX && oldest !== undefined) seen.delete(oldest);
    return missed;
  }

  return { report: (place) => advance(place, 1n), status: (place) => advance(place, 0n) };
}
