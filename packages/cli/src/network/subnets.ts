// Which /24 a stack's own pod network gets: one that nothing on this host routes to, and that no
// other stack has claimed. Pure.

import { Failure } from '@cribus/contracts/failure.ts';

/** An IPv4 network: address and mask as unsigned 32-bit numbers. */
export interface Network {
  readonly address: number;
  readonly prefix: number;
}

/** 10.88.0.0/24 to 10.127.255.0/24: 40 × 256 of them. */
const FIRST_SECOND_OCTET = 88;
const SUBNET_COUNT = 40 * 256;

/** The first free subnet, searched from `seed` on. Raises limit when all of them are used. */
export function chooseSubnet(used: readonly Network[], seed: number): string {
  for (let step = 0; step < SUBNET_COUNT; step += 1) {
    const index = (seed + step) % SUBNET_COUNT;
    const second = FIRST_SECOND_OCTET + Math.floor(index / 256);
    const text = `10.${second}.${index % 256}.0/24`;
    const candidate = parseNetwork(text);
    if (candidate !== undefined && !used.some((network) => overlap(network, candidate))) {
      return text;
    }
  }
  throw new Failure('limit', 'no /24 between 10.88.0.0 and 10.127.255.0 is free on this host');
}

/** True if two networks share an address. */
export function overlap(one: Network, other: Network): boolean {
  const mask = maskOf(Math.min(one.prefix, other.prefix));
  return (one.address & mask) >>> 0 === (other.address & mask) >>> 0;
}

/** Reads `a.b.c.d/n`; undefined for anything else. */
export function parseNetwork(text: string): Network | undefined {
  const match = /^(\d{1,3})\.(\d{1,3})\.(\d{1,3})\.(\d{1,3})\/(\d{1,2})$/.exec(text);
  if (match === null) return undefined;
  const [a = 0, b = 0, c = 0, d = 0, prefix = 0] = match.slice(1).map(Number);
  if ([a, b, c, d].some((octet) => octet > 255) || prefix > 32) return undefined;
  return { address: ((a << 24) | (b << 16) | (c << 8) | d) >>> 0, prefix };
}

/** The first usable address, for the bridge: `10.x.y.1`. */
export function gatewayOf(subnet: string): string {
  return subnet.replace(/\.0\/24$/, '.1');
}

/**
 * Destinations of /proc/net/route (little-endian hexadecimal, one line each). The default route
 * overlaps everything and is left out, and so are the routes of `exceptInterface`.
 */
export function parseRoutes(text: string, exceptInterface = ''): Network[] {
  return text
    .split('\n')
    .slice(1)
    .flatMap((line) => {
      const [name, destination = '', , , , , , mask = ''] = line.split('\t');
      if (name === exceptInterface) return [];
      if (!/^[0-9A-F]{8}$/i.test(destination) || !/^[0-9A-F]{8}$/i.test(mask)) return [];
      const prefix = bitsOf(littleEndian(mask));
      return prefix === 0 ? [] : [{ address: littleEndian(destination), prefix }];
    });
}

function littleEndian(hex: string): number {
  return Buffer.from(hex, 'hex').readUInt32LE();
}

function bitsOf(mask: number): number {
  return mask.toString(2).replaceAll('0', '').length;
}

function maskOf(prefix: number): number {
  return prefix === 0 ? 0 : (0xffffffff << (32 - prefix)) >>> 0;
}
