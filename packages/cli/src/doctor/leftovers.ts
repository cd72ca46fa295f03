// What a crash may have left of a stack: each with the way to take it away. Services sweep up after
// themselves at their next start; this is for a node where none will come.

import { chmodSync, existsSync } from 'node:fs';
import { basename, join } from 'node:path';
import { containerPaths, handlerPaths, type Roots, sandboxPaths } from '@cribus/contracts/paths.ts';
import { listDirectory, removeTree } from '@cribus/host/files.ts';
import { mountsBelow, unmountTree } from '@cribus/host/mounts.ts';
import { commandLine, identify, listPids, signalProcess } from '@cribus/host/processes.ts';
import type { Stack } from '../stack/open-stack.ts';
import { readLivingParts, writePartStates } from '../stack/part-state.ts';
import { stopParts } from '../stack/supervisor.ts';
import { findUp } from '../stack/up-lock.ts';
import { openCredentials } from './stack-checks.ts';

export interface Leftover {
  /** A phrase, as in `the namespaces of sandbox 1234`. */
  readonly what: string;
  /** Takes it away; raises what the system says when it can't. */
  readonly remove: () => Promise<void>;
}

/** Everything that no record and no `cribus up` accounts for any more. Changes nothing. */
export async function findLeftovers(stack: Stack): Promise<Leftover[]> {
  const found = await Promise.all([
    partsWithoutUp(stack),
    sandboxesWithoutRecord(stack),
    containersWithoutRecord(stack),
    monitorsWithoutRecord(stack),
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

/** Of every handler that has a directory, whether or not the configuration still names it. */
async function containersWithoutRecord(stack: Stack): Promise<Leftover[]> {
  const { roots } = stack.paths;
  const found: Leftover[] = [];
  for (const token of await listDirectory(join(roots.run, 'handlers'))) {
    for (const id of await listDirectory(handlerPaths(roots, token).run)) {
      const paths = containerPaths(roots, token, id);
      if (!isContainerId(id) || existsSync(paths.record)) continue;
      if (mountsBelow(paths.bundle).length === 0) continue;
      found.push({
        what: `mounts of ${token} container ${id.slice(0, 13)}, which has no record`,
        remove: () => takeAway(paths.bundle),
      });
    }
  }
  return found;
}

async function takeAway(directory: string): Promise<void> {
  unmountTree(directory);
  await removeTree(directory);
}

async function monitorsWithoutRecord(stack: Stack): Promise<Leftover[]> {
  const { roots } = stack.paths;
  const found: Leftover[] = [];
  for (const pid of listPids()) {
    const container = containerOfMonitor(roots, commandLine(pid));
    if (container === undefined || existsSync(container.record)) continue;
    const identity = identify(pid);
    if (identity === undefined) continue;
    found.push({
      what: `monitor ${pid} of container ${container.id.slice(0, 13)}, which has no record`,
      remove: async () => void signalProcess(identity, 'SIGKILL'),
    });
  }
  return found;
}

/**
 * conmon names its container's bundle on its command line, and the bundle its handler: a configuration
 * that has changed since says nothing of it. Undefined for other programs, and monitors of other stacks.
 */
export function containerOfMonitor(
  roots: Roots,
  [program = '', ...args]: readonly string[],
): { readonly id: string; readonly record: string } | undefined {
  const bundle = args[args.indexOf('-b') + 1] ?? '';
  const handlers = join(roots.run, 'handlers');
  if (basename(program) !== 'conmon' || !bundle.startsWith(`${handlers}/`)) return undefined;
  const [token = '', id = ''] = bundle.slice(handlers.length + 1).split('/');
  return { id, record: containerPaths(roots, token, id).record };
}

async function credentialsForOthers({ paths }: Stack): Promise<Leftover[]> {
  return (await openCredentials(paths)).map((path) => ({
    what: `credentials that others may read: ${path}`,
    remove: async () => chmodSync(path, path === paths.credentialsDirectory ? 0o700 : 0o600),
  }));
}

function isContainerId(name: string): boolean {
  return /^[0-9a-f]{64}$/.test(name);
}
