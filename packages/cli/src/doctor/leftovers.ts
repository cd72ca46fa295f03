// What a crash may have left of a stack: each with the way to take it away. Services sweep up after
// themselves at their next start; this is for a node where none will come.

import { chmodSync, existsSync } from 'node:fs';
import { join } from 'node:path';
import type { Config } from '@cribus/chassis/config.ts';
import { sandboxPaths } from '@cribus/contracts/paths.ts';
import { listDirectory, removeTree } from '@cribus/host/files.ts';
import { unmountTree } from '@cribus/host/mounts.ts';
import type { Stack } from '../stack/open-stack.ts';
import { readLivingParts, writePartStates } from '../stack/part-state.ts';
import { stopParts } from '../stack/supervisor.ts';
import { findUp } from '../stack/up-lock.ts';
import { findLostContainers, removeLost } from './lost-containers.ts';
import { openCredentials } from './stack-checks.ts';

export interface Leftover {
  /** A phrase, as in `the namespaces of sandbox 1234`. */
  readonly what: string;
  /** Takes it away; raises what the system says when it can't. */
  readonly remove: () => Promise<void>;
}

/** Everything that no record and no `cribus up` accounts for any more. Changes nothing. */
export async function findLeftovers(stack: Stack, config: Config): Promise<Leftover[]> {
  const found = await Promise.all([
    partsWithoutUp(stack),
    sandboxesWithoutRecord(stack),
    containersWithoutRecord(stack, config),
    credentialsForOthers(stack),
  ]);
  return found.flat();
}

/** A killed `up` leaves its parts; the next one would adopt them. */
async function partsWithoutUp(stack: Stack): Promise<Leftover[]> {
  const { roots } = stack.paths;
  if ((await findUp(roots)) !== undefined) return [];
  const states = await readLivingParts(roots);
  const names = Object.keys(states);
  if (names.length === 0) return [];
  return [
    {
      what: `parts of a "cribus up" that is gone: ${names.join(', ')}`,
      remove: async () => {
        await stopParts({ states, say: () => undefined });
        await writePartStates(roots, {});
      },
    },
  ];
}

/** The record is written before any effect, and goes after the last. */
async function sandboxesWithoutRecord(stack: Stack): Promise<Leftover[]> {
  const { roots } = stack.paths;
  const ids = await listDirectory(join(roots.run, 'sandboxes'));
  return ids
    .filter((id) => !existsSync(sandboxPaths(roots, id).record))
    .map((id) => ({
      what: `namespaces of sandbox ${id.slice(0, 13)}, which has no record`,
      remove: () => takeAway(sandboxPaths(roots, id).pins),
    }));
}

async function containersWithoutRecord(stack: Stack, config: Config): Promise<Leftover[]> {
  const { roots } = stack.paths;
  return (await findLostContainers(roots, config)).map((lost) => ({
    what: `${lost.token} container ${lost.id.slice(0, 13)}, which has no record: ${lost.holds.join(', ')}`,
    remove: () => removeLost(roots, lost),
  }));
}

async function takeAway(directory: string): Promise<void> {
  unmountTree(directory);
  await removeTree(directory);
}

async function credentialsForOthers({ paths }: Stack): Promise<Leftover[]> {
  return (await openCredentials(paths)).map((path) => ({
    what: `credentials that others may read: ${path}`,
    remove: async () => chmodSync(path, path === paths.credentialsDirectory ? 0o700 : 0o600),
  }));
}
