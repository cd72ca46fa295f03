// The pod subnets that UpdateRuntimeConfig brought, kept over restarts; plugins with the capability
// ipRanges get them.

import { mkdirSync, readFileSync } from 'node:fs';
import { isIP } from 'node:net';
import { dirname } from 'node:path';
import { Failure } from '@cribus/contracts/failure.ts';
import { isErrno } from '@cribus/host/errno.ts';
import { writeFileAtomic } from '@cribus/host/files.ts';

export interface PodCidr {
  /** Comma-separated subnets; empty until somebody said. */
  current(): string;
  set(podCidr: string): Promise<void>;
}

/** One per address family (Kubernetes, dual-stack). */
const SUBNETS_MAX = 2;

export function openPodCidr(file: string): PodCidr {
  let value = readOrEmpty(file);
  return {
    current: () => value,
    async set(podCidr) {
      checkPodCidr(podCidr);
      if (podCidr === value) return;
      mkdirSync(dirname(file), { recursive: true });
      await writeFileAtomic(file, podCidr);
      value = podCidr;
    },
  };
}

/** Raises invalid_argument unless empty or one or two subnets. */
export function checkPodCidr(podCidr: string): void {
  if (podCidr === '') return;
  const subnets = podCidr.split(',').map((subnet) => subnet.trim());
  if (subnets.length > SUBNETS_MAX || !subnets.every(isSubnet)) {
    throw new Failure(
      'invalid_argument',
      `pod_cidr "${podCidr}": expected a subnet as 10.1.2.0/24, or two with a comma`,
    );
  }
}

function isSubnet(text: string): boolean {
  const [address = '', length = '', ...rest] = text.split('/');
  const family = isIP(address);
  if (family === 0 || rest.length > 0 || !/^\d{1,3}$/.test(length)) return false;
  return Number(length) <= (family === 4 ? 32 : 128);
}

function readOrEmpty(file: string): string {
  try {
    return readFileSync(file, 'utf8').trim();
  } catch (error) {
    if (!isErrno(error, 'ENOENT')) throw error;
    return '';
  }
}
