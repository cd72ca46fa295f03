// What a crash may have left of a stack: each with the way to take it away. Services sweep up after
// themselves at their next start; this is for a node where none will come.

import { chmodSync, existsSync } from 'node:fs';
import { basename, join } from 'node:path';
import type { Config } from '@cribus/chassis/config.ts';
import { containerPaths, handlerPaths, sandboxPaths } from '@cribus/contracts/paths.ts';
import { subjectToken } from '@cribus/contracts/subjects.ts';
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
export async function findLeftovers(stack: Stack, config: Config): Promise<Leftover[]> {
  const found = await Promise.all([
    partsWithoutUp(stack),
    sandboxesWithoutRecord(stack),
    containersWithoutRecord(stack, config),
    monitorsWithoutRecord(stack, config),
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
  const found: Leftover[] = [];
  for (const handler of Object.keys(config.runtimes.handlers)) {
    const token = subjectToken(handler);
    for (const id of await listDirectory(handlerPaths(roots, token).run)) {
      const paths = containerPaths(roots, token, id);
      if (!isContainerId(id) || existsSync(paths.record)) continue;
      if (mountsBelow(paths.bundle).length === 0) continue;
      found.push({
        what: `mounts of ${handler} container ${id.slice(0, 13)}, which has no record`,
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

/** conmon names its container and its bundle on its command line. */
async function monitorsWithoutRecord(stack: Stack, config: Config): Promise<Leftover[]> {
  const { roots } = stack.paths;
  const found: Leftover[] = [];
  for (const pid of listPids()) {
    const [program = '', ...args] = commandLine(pid);
    const bundle = args[args.indexOf('-b') + 1] ?? '';
    if (basename(program) !== 'conmon' || !bundle.startsWith(`${roots.run}/handlers/`)) continue;
    const id = basename(bundle);
    const hasRecord = Object.keys(config.runtimes.handlers).some((handler) =>
      existsSync(containerPaths(roots, subjectToken(handler), id).record),
    );
    const identity = identify(pid);
    if (hasRecord || identity === undefined) continue;
    found.push({
      what: `monitor ${pid} of container ${id.slice(0, 13)}, which has no record`,
      remove: async () => void signalProcess(identity, 'SIGKILL'),
    });
  }
  return found;
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
