// Reading a CNI result: which addresses the pod got.

import { Failure } from '@cribus/contracts/failure.ts';
import { isObject } from '@cribus/contracts/network-list.ts';

/** Addresses in the plugins' own order, without prefix lengths: the first is the pod IP. */
export function podAddresses(result: unknown): string[] {
  if (!isObject(result) || !Array.isArray(result['ips'])) return [];
  const interfaces: unknown[] = Array.isArray(result['interfaces']) ? result['interfaces'] : [];
  const addresses: string[] = [];
  for (const ip of result['ips']) {
    if (!isObject(ip) || typeof ip['address'] !== 'string') continue;
    const index = ip['interface'];
    const owner = typeof index === 'number' ? interfaces[index] : undefined;
    // An interface without a sandbox is on the host: its address is not the pod's.
    if (isObject(owner) && (owner['sandbox'] === undefined || owner['sandbox'] === '')) continue;
    const [address = ''] = ip['address'].split('/');
    if (address !== '' && !addresses.includes(address)) addresses.push(address);
  }
  return addresses;
}

/** The addresses; raises wrong_state where the network gave none, as no kubelet can use that pod. */
export function requireAddresses(
  result: unknown,
  where: { readonly network: string; readonly sandboxId: string },
): string[] {
  const addresses = podAddresses(result);
  if (addresses.length === 0) {
    throw new Failure(
      'wrong_state',
      `sandbox ${where.sandboxId}: network ${where.network} gave it no address`,
      { stage: 'CNI ADD' },
    );
  }
  return addresses;
}
