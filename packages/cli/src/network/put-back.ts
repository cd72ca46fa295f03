// The host as it was before this stack: its bridge, and, when the last stack of this network
// namespace goes, portmap's chains and the forwarding of packets.

import { readFile, rm, writeFile } from 'node:fs/promises';
import { isErrno } from '@cribus/host/errno.ts';
import { run } from '@cribus/host/spawn.ts';
import type { Stack } from '../stack/open-stack.ts';
import { type HostBefore, readOwnClaim, withRegistry } from './host-registry.ts';
import { applyRemoval, natRules, removalScript } from './iptables.ts';
import { IP_FORWARD } from './provide-network.ts';

/** Gives this stack's claim back. No pod may be left. Answers what could not be put back. */
export async function putNetworkBack(stack: Stack, signal: AbortSignal): Promise<string[]> {
  const { state } = stack.paths.roots;
  return withRegistry(signal, async (registry) => {
    const problems: string[] = [];
    const own =
      registry.claims.find((claim) => claim.state === state) ?? (await readOwnClaim(state));
    if (own !== undefined && own.bridge !== '')
      problems.push(...(await removeLink(own.bridge, signal)));
    const claims = registry.claims.filter((claim) => claim.state !== state);
    const wasHere = claims.length !== registry.claims.length;
    if (claims.length === 0 && wasHere && registry.before !== undefined) {
      problems.push(...(await restoreHost(registry.before, signal)));
    }
    return { registry: { ...registry, claims }, result: problems };
  });
}

/** Removes what the stack kept of its network; its addresses are free once no pod is left. */
export async function forgetNetwork(stack: Stack): Promise<void> {
  await rm(`${stack.paths.roots.state}/cni`, { recursive: true, force: true });
}

async function removeLink(name: string, signal: AbortSignal): Promise<string[]> {
  // /proc/net is the process' own network namespace; /sys/class/net is its mount's.
  const present = (await readFile('/proc/net/dev', 'latin1')).includes(`${name}:`);
  if (!present) return [];
  const result = await run({ command: 'ip', args: ['link', 'delete', name], signal });
  return result.exitCode === 0 ? [] : [`the bridge ${name}: ${result.stderr.toString().trim()}`];
}

async function restoreHost(before: HostBefore, signal: AbortSignal): Promise<string[]> {
  const problems: string[] = [];
  const rules = await natRules(signal);
  const script = rules === undefined ? undefined : removalScript(rules, before.chains);
  if (script !== undefined && !(await applyRemoval(script, signal))) {
    problems.push('the chains CNI-HOSTPORT-*: iptables-restore refused');
  }
  try {
    const now = (await readFile(IP_FORWARD, 'latin1')).trim();
    if (now !== before.ipForward) await writeFile(IP_FORWARD, before.ipForward);
  } catch (error) {
    if (!isErrno(error, 'EROFS', 'EACCES', 'EPERM')) throw error;
    problems.push(`${IP_FORWARD}: ${String(error)}`);
  }
  return problems;
}
