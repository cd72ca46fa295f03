// The files of a pod: resolv.conf, hostname and hosts in its directory, /dev/shm as a mount beside its
// namespace pins.

import { appendFile, chown, mkdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { DNSConfig } from '@cribus/contracts/gen/cri/v1/api.ts';
import type { Roots } from '@cribus/contracts/paths.ts';
import { sandboxPaths } from '@cribus/contracts/paths.ts';
import { isErrno } from '@cribus/host/errno.ts';
import { mountTmpfs } from '@cribus/host/mounts.ts';

/** As Docker and containerd have it for a pod without a size of its own. */
const SHM_OPTIONS = 'mode=1777,size=64m';

const LOCAL_HOSTS = '127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n';

/** As the host counts. */
export interface Owner {
  readonly uid: number;
  readonly gid: number;
}

/** Where a sandbox's files, pins and mounts are. */
export function podPaths(roots: Roots, sandboxId: string) {
  const paths = sandboxPaths(roots, sandboxId);
  const { pins } = paths;
  const pin = (kind: string) => join(pins, kind);
  return { ...paths, net: pin('net'), ipc: pin('ipc'), uts: pin('uts'), user: pin('user') };
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
    readonly hostNetwork: boolean;
    readonly logDirectory: string;
    /** The root of the pod's user namespace, who may write its files as any pod's root may. */
    readonly owner: Owner | undefined;
  },
): Promise<void> {
  const resolv = resolvConf(pod.dns) ?? (await hostFile('/etc/resolv.conf'));
  await Promise.all([
    writeFile(paths.resolvConf, resolv, { mode: 0o644 }),
    writeFile(paths.hostname, `${pod.hostname}\n`, { mode: 0o644 }),
    // The kubelet mounts its own over it; containers of other callers resolve localhost by this one.
    writeFile(paths.hosts, pod.hostNetwork ? await hostFile('/etc/hosts') : LOCAL_HOSTS, {
      mode: 0o644,
    }),
    // The kubelet makes it before; other callers expect us to.
    pod.logDirectory === '' ? undefined : mkdir(pod.logDirectory, { recursive: true, mode: 0o755 }),
  ]);
  const { owner } = pod;
  if (owner === undefined) return;
  const files = [paths.resolvConf, paths.hostname, paths.hosts];
  await Promise.all(files.map((file) => chown(file, owner.uid, owner.gid)));
}

/** Names the pod's addresses in its hosts file, as the kubelet's own would (hosts(5)). */
export async function nameInHosts(
  paths: ReturnType<typeof podPaths>,
  pod: { readonly hostname: string; readonly ips: readonly string[] },
): Promise<void> {
  if (pod.hostname === '' || pod.ips.length === 0) return;
  await appendFile(paths.hosts, pod.ips.map((ip) => `${ip}\t${pod.hostname}\n`).join(''));
}

/** A file of the host that a pod gets a copy of; empty where there is none. */
async function hostFile(path: string): Promise<string> {
  try {
    return await readFile(path, 'utf8');
  } catch (error) {
    if (!isErrno(error, 'ENOENT')) throw error;
    return '';
  }
}

/** Mounts the pod's /dev/shm on an existing directory. */
export function mountShm(target: string, owner: Owner | undefined): void {
  const ownership = owner === undefined ? '' : `,uid=${owner.uid},gid=${owner.gid}`;
  mountTmpfs(target, `${SHM_OPTIONS}${ownership}`);
}
