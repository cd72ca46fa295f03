// The files of a pod: resolv.conf and hostname in its directory, /dev/shm as a mount beside its
// namespace pins.

import { mkdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { DNSConfig } from '@cribus/contracts/gen/cri/v1/api.ts';
import type { Roots } from '@cribus/contracts/paths.ts';
import { sandboxPaths } from '@cribus/contracts/paths.ts';
import { isErrno } from '@cribus/host/errno.ts';
import { mountTmpfs } from '@cribus/host/mounts.ts';

/** As Docker and containerd have it for a pod without a size of its own. */
const SHM_OPTIONS = 'mode=1777,size=64m';

/** Where a sandbox's files, pins and mounts are. */
export function podPaths(roots: Roots, sandboxId: string) {
  const paths = sandboxPaths(roots, sandboxId);
  const { pins } = paths;
  return { ...paths, net: join(pins, 'net'), ipc: join(pins, 'ipc'), uts: join(pins, 'uts') };
}

/** resolv.conf(5) of a pod; undefined where the pod says nothing and gets the host's. */
export function resolvConf(dns: DNSConfig | undefined): string | undefined {
  if (dns === undefined) return undefined;
  const { searches, servers, options } = dns;
  if (searches.length + servers.length + options.length === 0) return undefined;
  return [
    searches.length > 0 ? `search ${searches.join(' ')}\n` : '',
    ...servers.map((server) => `nameserver ${server}\n`),
    options.length > 0 ? `options ${options.join(' ')}\n` : '',
  ].join('');
}

/** Writes the files; the directory exists already. `hostname` is the one seen in the pod. */
export async function writePodFiles(
  paths: ReturnType<typeof podPaths>,
  pod: {
    readonly dns: DNSConfig | undefined;
    readonly hostname: string;
    readonly logDirectory: string;
  },
): Promise<void> {
  const resolv = resolvConf(pod.dns) ?? (await hostResolvConf());
  await Promise.all([
    writeFile(paths.resolvConf, resolv, { mode: 0o644 }),
    writeFile(paths.hostname, `${pod.hostname}\n`, { mode: 0o644 }),
    // The kubelet makes it before; other callers expect us to.
    pod.logDirectory === '' ? undefined : mkdir(pod.logDirectory, { recursive: true, mode: 0o755 }),
  ]);
}

async function hostResolvConf(): Promise<string> {
  try {
    return await readFile('/etc/resolv.conf', 'utf8');
  } catch (error) {
    if (!isErrno(error, 'ENOENT')) throw error;
    return '';
  }
}

/** Mounts the pod's /dev/shm on an existing directory. */
export function mountShm(target: string): void {
  mountTmpfs(target, SHM_OPTIONS);
}
