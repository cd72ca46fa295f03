// What pulls that are under way still need, so that no collection takes it: each thing is held as often as it
// was asked for.

export interface Holds {
  hold(name: string): void;
  release(names: readonly string[]): void;
  isHeld(name: string): boolean;
}

export function createHolds(): Holds {
  const counts = new Map<string, number>();
  return {
    hold: (name) => void counts.set(name, (counts.get(name) ?? 0) + 1),
    release(names) {
      for (const name of names) {
        const left = (counts.get(name) ?? 1) - 1;
        if (left > 0) counts.set(name, left);
        else counts.delete(name);
      }
    },
    isHeld: (name) => counts.has(name),
  };
}
