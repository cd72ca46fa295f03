// /run/cribus-host: what the stacks of one network namespace have claimed of it, and how the host was
// before the first of them. Read and written under a lock that all stacks share.

import { mkdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { listDirectory, lock, readFileIfExists, writeFileAtomic } from '@cribus/host/files.ts';
import { networkNamespaceNumber } from '@cribus/host/namespaces.ts';

const DIRECTORY = '/run/cribus-host';

export interface Claim {
  /** The stack's state directory, which names the stack. */
  readonly state: string;
  /** Empty where the stack uses a network of the operator's. */
  readonly bridge: string;
  readonly subnet: string;
}

export interface HostBefore {
  /** /proc/sys/net/ipv4/ip_forward. */
  readonly ipForward: string;
  /** Chains of the nat table that were there already. */
  readonly chains: readonly string[];
}

export interface Registry {
  readonly before: HostBefore | undefined;
  readonly claims: readonly Claim[];
}

/** Where a stack keeps its own copy of its claim. */
export function claimFile(stateDirectory: string): string {
  return join(stateDirectory, 'generated', 'network.json');
}

/**
 * Runs `work` on the registry of our network namespace, and keeps what it answers; a registry
 * without claims is removed. Claims of stacks that are gone are dropped first.
 */
export async function withRegistry<T>(
  signal: AbortSignal,
  work: (registry: Registry) => Promise<{ readonly registry: Registry; readonly result: T }>,
): Promise<T> {
  await mkdir(DIRECTORY, { recursive: true, mode: 0o700 });
  const held = await lock(join(DIRECTORY, 'lock'), signal);
  try {
    const netns = String(networkNamespaceNumber());
    const file = join(DIRECTORY, `${netns}.json`);
    const { registry, result } = await work(await read(file, netns));
    if (registry.claims.length === 0) await rm(file, { force: true });
    else await writeFileAtomic(file, `${JSON.stringify(registry, undefined, 2)}\n`);
    await dropForgotten(netns);
    return result;
  } finally {
    held.close();
  }
}

async function read(file: string, netns: string): Promise<Registry> {
  const text = await readFileIfExists(file);
  if (text === undefined) return { before: undefined, claims: [] };
  const { before, claims } = JSON.parse(text.toString('utf8')) as Registry;
  const living: Claim[] = [];
  for (const claim of claims) if (await isLiving(claim, netns)) living.push(claim);
  return living.length === 0 ? { before: undefined, claims: [] } : { before, claims: living };
}

/** Namespaces go without a word; what stacks claimed of one goes when none of them knows it. */
async function dropForgotten(ownNumber: string): Promise<void> {
  for (const name of await listDirectory(DIRECTORY)) {
    const netns = /^(\d+)\.json$/.exec(name)?.[1] ?? ownNumber;
    if (netns === ownNumber) continue;
    const file = join(DIRECTORY, name);
    if ((await read(file, netns)).claims.length === 0) await rm(file, { force: true });
  }
}

/** A stack whose directory was deleted, or that moved to another namespace, claims nothing here. */
async function isLiving(claim: Claim, netns: string): Promise<boolean> {
  const text = await readFileIfExists(claimFile(claim.state));
  if (text === undefined) return false;
  const own = JSON.parse(text.toString('utf8')) as Claim & { readonly netns: string };
  return own.netns === netns && own.bridge === claim.bridge && own.subnet === claim.subnet;
}

/** Writes the stack's own copy, which is what keeps a claim alive. */
export async function writeOwnClaim(claim: Claim): Promise<void> {
  const own = { netns: String(networkNamespaceNumber()), ...claim };
  await writeFileAtomic(claimFile(claim.state), `${JSON.stringify(own, undefined, 2)}\n`);
}

/** The stack's own copy; undefined where it has none. */
export async function readOwnClaim(stateDirectory: string): Promise<Claim | undefined> {
  const text = await readFileIfExists(claimFile(stateDirectory));
  if (text === undefined) return undefined;
  const { state, bridge, subnet } = JSON.parse(text.toString('utf8')) as Claim;
  return { state, bridge, subnet };
}
