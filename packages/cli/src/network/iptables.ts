// The nat table as `iptables -S` prints it, and what takes portmap's chains out of it again.

import { isErrno } from '@cribus/host/errno.ts';
import { run } from '@cribus/host/spawn.ts';

/** portmap's chains (CNI plugins, meta/portmap): this one holds one rule for each host port. */
const DNAT_CHAIN = 'CNI-HOSTPORT-DNAT';
const OWN_CHAINS = ['CNI-HOSTPORT-DNAT', 'CNI-HOSTPORT-SETMARK', 'CNI-HOSTPORT-MASQ'];

/** The rules of the nat table; undefined where there is no iptables, or it doesn't work. */
export async function natRules(signal: AbortSignal): Promise<string | undefined> {
  try {
    const args = ['-w', '5', '-t', 'nat', '-S'];
    const result = await run({ command: 'iptables', args, signal });
    return result.exitCode === 0 ? result.stdout.toString('utf8') : undefined;
  } catch (error) {
    if (isErrno(error, 'ENOENT')) return undefined;
    throw error;
  }
}

/** Names of the user-defined chains. */
export function parseChains(rules: string): string[] {
  return [...rules.matchAll(/^-N (\S+)$/gm)].map((match) => match[1] ?? '');
}

/**
 * What iptables-restore must be given to remove portmap's chains that were absent `before`, with the
 * jumps to them; undefined when there is nothing to remove, or a host port is still mapped.
 */
export function removalScript(rules: string, before: readonly string[]): string | undefined {
  const lines = rules.split('\n');
  if (lines.some((line) => line.startsWith(`-A ${DNAT_CHAIN} `))) return undefined;
  const present = new Set(parseChains(rules));
  const doomed = OWN_CHAINS.filter((name) => present.has(name) && !before.includes(name));
  if (doomed.length === 0) return undefined;
  const jumps = lines.filter((line) => {
    const match = /^-A (\S+) .*-j (\S+)$/.exec(line);
    const [, from = '', to = ''] = match ?? [];
    return doomed.includes(to) && !doomed.includes(from);
  });
  return [
    '*nat',
    ...jumps.map((line) => line.replace(/^-A/, '-D')),
    ...doomed.map((name) => `-F ${name}`),
    ...doomed.map((name) => `-X ${name}`),
    'COMMIT',
    '',
  ].join('\n');
}

/** Applies a removal in one transaction; false when iptables refuses it. */
export async function applyRemoval(script: string, signal: AbortSignal): Promise<boolean> {
  const args = ['-w', '5', '--noflush'];
  const stdin = Buffer.from(script);
  const result = await run({ command: 'iptables-restore', args, stdin, signal });
  return result.exitCode === 0;
}
