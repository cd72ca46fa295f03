// DIR/run/parts.json: which processes are the parts of this stack, so that the next `up` finds them
// even when this one was killed.

import { join } from 'node:path';
import type { Roots } from '@cribus/contracts/paths.ts';
import { readFileIfExists, writeFileAtomic } from '@cribus/host/files.ts';
import { isAlive, type ProcessIdentity } from '@cribus/host/processes.ts';
import { PART_NAMES, type PartName } from './services.ts';

export interface PartState {
  readonly identity: ProcessIdentity;
  /** Wall clock, milliseconds since 1970. */
  readonly startedAtMs: number;
  /** SHA-256 over the program, its arguments, its environment and its configuration. */
  readonly fingerprint: string;
  readonly version: string;
  /** Of a service: where its health is served. */
  readonly healthPort: number;
}

export type PartStates = Partial<Record<PartName, PartState>>;

function stateFile(roots: Roots): string {
  return join(roots.run, 'parts.json');
}

/** What the last `up` recorded; nothing when there is no such file, or it can't be read. */
export async function readPartStates(roots: Roots): Promise<PartStates> {
  const text = (await readFileIfExists(stateFile(roots)))?.toString('utf8');
  if (text === undefined) return {};
  let raw: unknown;
  try {
    raw = JSON.parse(text);
  } catch (error) {
    if (error instanceof SyntaxError) return {};
    throw error;
  }
  const states: PartStates = {};
  for (const name of PART_NAMES) {
    const row = (raw as Record<string, Record<string, unknown> | undefined>)[name];
    if (row !== undefined) states[name] = decode(row);
  }
  return states;
}

/** Only those whose process lives. */
export async function readLivingParts(roots: Roots): Promise<PartStates> {
  const states = await readPartStates(roots);
  return Object.fromEntries(
    Object.entries(states).filter(([, state]) => isAlive(state.identity)),
  ) as PartStates;
}

export async function writePartStates(roots: Roots, states: PartStates): Promise<void> {
  const rows = Object.entries(states).map(([name, { identity, ...rest }]) => [
    name,
    { ...rest, ...identity, startTimeTicks: String(identity.startTimeTicks) },
  ]);
  await writeFileAtomic(stateFile(roots), `${JSON.stringify(Object.fromEntries(rows))}\n`, {
    mode: 0o600,
  });
}

function decode(row: Record<string, unknown>): PartState {
  return {
    identity: {
      pid: Number(row['pid']),
      startTimeTicks: BigInt(String(row['startTimeTicks'] ?? 0)),
      bootId: String(row['bootId']),
    },
    startedAtMs: Number(row['startedAtMs']),
    fingerprint: String(row['fingerprint']),
    version: String(row['version']),
    healthPort: Number(row['healthPort'] ?? 0),
  };
}
