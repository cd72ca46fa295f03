// A bridge network of the same plugins and settings as the one that `cribus up` provides, under a name
// and a /24 that no stack of this machine has.

import { execFileSync } from 'node:child_process';
import { existsSync, readFileSync, statSync } from 'node:fs';
import { networkInterfaces } from 'node:os';
import { join } from 'node:path';
import { bridgeConflist } from '@cribus/cli/network/conflist.ts';
import { withRegistry } from '@cribus/cli/network/host-registry.ts';
import { chooseSubnet, parseNetwork, parseRoutes } from '@cribus/cli/network/subnets.ts';

const REGISTRY_BUDGET_MS = 10_000;

export interface Bridge {
  /** As a *.conflist file has it. */
  readonly text: string;
  /** Removes the bridge and gives its subnet back. */
  release(): Promise<void>;
}

/** Claims it in the registry of stacks, for as long as `directory` is there; addresses are below it. */
export async function claimBridge(directory: string): Promise<Bridge> {
  const seed = statSync(directory).ino;
  const bridge = `cbb-${seed.toString(16).slice(-8)}`;
  const subnet = await withRegistry(AbortSignal.timeout(REGISTRY_BUDGET_MS), async (registry) => {
    const addresses = Object.values(networkInterfaces()).flatMap((rows) => rows ?? []);
    const texts = [
      ...addresses.map((row) => row.cidr ?? ''),
      ...registry.claims.map((claim) => claim.subnet),
    ];
    const used = [
      ...parseRoutes(readFileSync('/proc/net/route', 'latin1')),
      ...texts.flatMap((text) => parseNetwork(text) ?? []),
    ];
    const result = chooseSubnet(used, seed);
    const claims = [...registry.claims, { state: directory, bridge, subnet: result }];
    return { registry: { ...registry, claims }, result };
  });
  const dataDirectory = join(directory, 'addresses');
  return {
    text: bridgeConflist({ name: bridge, bridge, subnet, dataDirectory }),
    release: async () => {
      if (existsSync(`/sys/class/net/${bridge}`)) execFileSync('ip', ['link', 'delete', bridge]);
      await withRegistry(AbortSignal.timeout(REGISTRY_BUDGET_MS), async (registry) => {
        const claims = registry.claims.filter((claim) => claim.state !== directory);
        return { registry: { ...registry, claims }, result: undefined };
      });
    },
  };
}
