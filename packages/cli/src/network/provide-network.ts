// Where the host has no network configuration for pods, the stack brings its own: a bridge and a /24
// that no other stack has. What the host was like before is recorded first, to be put back.

import { mkdir, readFile } from 'node:fs/promises';
import { networkInterfaces } from 'node:os';
import { join } from 'node:path';
import { listDirectory, writeFileAtomic } from '@cribus/host/files.ts';
import type { Stack } from '../stack/open-stack.ts';
import { bridgeConflist } from './conflist.ts';
import {
  type Claim,
  type HostBefore,
  type Registry,
  readOwnClaim,
  withRegistry,
  writeOwnClaim,
} from './host-registry.ts';
import { natRules, parseChains } from './iptables.ts';
import { chooseSubnet, type Network, overlap, parseNetwork, parseRoutes } from './subnets.ts';

export const IP_FORWARD = '/proc/sys/net/ipv4/ip_forward';

/** Claims this stack's share of the host; answers the directory of its own network, or ''. */
export async function provideNetwork(options: {
  readonly stack: Stack;
  readonly say: (line: string) => void;
  readonly signal: AbortSignal;
}): Promise<string> {
  const { stack, say, signal } = options;
  const { conf_dir: configured, fallback_conf_dir: chosen } = stack.config.cni;
  const wanted = chosen === '' && !(await hasNetworkConfiguration(configured));
  const { state } = stack.paths.roots;
  await mkdir(stack.paths.generatedDirectory, { recursive: true, mode: 0o700 });
  const claim = await withRegistry(signal, async (registry) => {
    const before = registry.before ?? (await hostBefore(signal));
    const own = await readOwnClaim(state);
    const mine = await makeClaim({ registry, own, wanted, stack });
    await writeOwnClaim(mine);
    const others = registry.claims.filter((other) => other.state !== state);
    return { registry: { before, claims: [...others, mine] }, result: mine };
  });
  if (claim.bridge === '') return '';
  await writeConflist(stack, claim);
  if (wanted) {
    say(`No network configuration in ${configured}: pods get ${claim.subnet} on ${claim.bridge}.`);
  }
  return stack.paths.fallbackCniDirectory;
}

/** The names that libcni loads. */
export async function hasNetworkConfiguration(directory: string): Promise<boolean> {
  return (await listDirectory(directory)).some((name) => /\.(conf|conflist|json)$/.test(name));
}

async function makeClaim(options: {
  readonly registry: Registry;
  readonly own: Claim | undefined;
  readonly wanted: boolean;
  readonly stack: Stack;
}): Promise<Claim> {
  const { registry, own, wanted, stack } = options;
  const { state } = stack.paths.roots;
  const known = registry.claims.find((claim) => claim.state === state);
  // Pods may still have addresses of a network that was provided before.
  if (known !== undefined && known.bridge !== '') return known;
  if (!wanted) return { state, bridge: '', subnet: '' };
  const bridge = `cb-${stack.tag}`;
  const used = await usedNetworks(registry, bridge);
  const old = own?.subnet === undefined ? undefined : parseNetwork(own.subnet);
  const reusable = old !== undefined && !used.some((network) => overlap(network, old));
  const subnet =
    own !== undefined && reusable ? own.subnet : chooseSubnet(used, Number.parseInt(stack.tag, 16));
  return { state, bridge, subnet };
}

/** Everything that this namespace routes to or has an address in, and every claim. */
async function usedNetworks(registry: Registry, ownBridge: string): Promise<Network[]> {
  const routes = parseRoutes(await readFile('/proc/net/route', 'latin1'), ownBridge);
  const addresses = Object.entries(networkInterfaces())
    .filter(([name]) => name !== ownBridge)
    .flatMap(([, rows]) => rows ?? [])
    .map((row) => row.cidr ?? '');
  const texts = [...addresses, ...registry.claims.map((claim) => claim.subnet)];
  return [...routes, ...texts.flatMap((text) => parseNetwork(text) ?? [])];
}

async function hostBefore(signal: AbortSignal): Promise<HostBefore> {
  const ipForward = (await readFile(IP_FORWARD, 'latin1')).trim();
  return { ipForward, chains: parseChains((await natRules(signal)) ?? '') };
}

async function writeConflist(stack: Stack, claim: Claim): Promise<void> {
  const directory = stack.paths.fallbackCniDirectory;
  await mkdir(directory, { recursive: true, mode: 0o755 });
  const text = bridgeConflist({
    name: `cribus-${stack.tag}`,
    bridge: claim.bridge,
    subnet: claim.subnet,
    dataDirectory: join(stack.paths.roots.state, 'cni', 'addresses'),
  });
  await writeFileAtomic(join(directory, '10-cribus.conflist'), text);
}
