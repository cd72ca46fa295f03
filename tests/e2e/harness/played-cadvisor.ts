// What the kubelet's cAdvisor does to find a container and its figures, step by step, with its own
// rules for names (cadvisor, container/crio) and the kubelet's for ids (pkg/kubelet/stats).

import assert from 'node:assert/strict';
import { existsSync, lstatSync, readdirSync, readFileSync } from 'node:fs';
import { request } from 'node:http';
import { basename, join } from 'node:path';
import { detectCgroups } from '@cribus/host/cgroups.ts';

/** As cAdvisor parses them (cadvisor, container/crio/client.go). */
export interface Info {
  readonly storage_driver: string;
  readonly storage_root: string;
  readonly storage_image: string;
}
export interface ContainerInfo {
  readonly name: string;
  readonly pid: number;
  readonly image: string;
  readonly created_time: number;
  readonly labels: Readonly<Record<string, string>>;
  readonly annotations: Readonly<Record<string, string>>;
  readonly log_path: string;
  readonly root: string;
  readonly ip_address: string;
}

export interface Seen {
  /** The path of the cgroup, below the hierarchy. */
  readonly cgroup: string;
  readonly info: ContainerInfo;
  readonly cpuNs: bigint;
  readonly memoryBytes: bigint;
  /** Of eth0; only of the container that is named POD, and where its process can be found. */
  readonly receivedBytes: bigint | undefined;
  /** Bytes in the writable layer. */
  readonly layerBytes: number;
}

const cgroups = detectCgroups();
/** One hierarchy of several, or the only one. */
const HIERARCHY = cgroups.version === 'v1' ? '/sys/fs/cgroup/memory' : '/sys/fs/cgroup';

export interface Cadvisor {
  info(): Promise<Info>;
  /** The status and text of `GET /containers/ID`. */
  ask(id: string): Promise<{ readonly status: number; readonly text: string }>;
  /** What it makes of the cgroups below one, by the id that the kubelet reads from their names. */
  look(parent: string): Promise<ReadonlyMap<string, Seen>>;
}

/** A cAdvisor that looks for CRI-O at this socket. */
export function playCadvisor(socket: string): Cadvisor {
  const get = (path: string) =>
    new Promise<{ status: number; text: string }>((resolve, reject) => {
      const asked = request({ socketPath: socket, path, headers: { host: 'crio' } }, (answer) => {
        const chunks: Buffer[] = [];
        answer.on('data', (chunk: Buffer) => chunks.push(chunk));
        answer.on('end', () => {
          resolve({ status: answer.statusCode ?? 0, text: Buffer.concat(chunks).toString() });
        });
      });
      asked.on('error', reject);
      asked.end();
    });
  const ask = (id: string) => get(`/containers/${id}`);
  return {
    info: async () => JSON.parse((await get('/info')).text) as Info,
    ask,
    look: async (parent) => {
      const seen = new Map<string, Seen>();
      for (const cgroup of cgroupsBelow(parent)) {
        const name = basename(cgroup);
        const id = /[a-z0-9]{64}/.exec(name)?.[0];
        if (!name.startsWith('crio') || name.startsWith('crio-conmon') || id === undefined) {
          continue;
        }
        const { status, text } = await ask(id);
        assert.equal(status, 200, text);
        seen.set(kubeletId(name), measure(cgroup, JSON.parse(text) as ContainerInfo));
      }
      return seen;
    },
  };
}

/** The kubelet takes what is between the last dash and `.scope`, and a name without that as it is. */
function kubeletId(name: string): string {
  return name.endsWith('.scope') ? (name.slice(0, -'.scope'.length).split('-').at(-1) ?? '') : name;
}

function measure(cgroup: string, info: ContainerInfo): Seen {
  const isPod = info.labels['io.kubernetes.container.name'] === 'POD';
  const layer = join(info.root.replace(/\/merged$/, ''), 'diff');
  assert.ok(lstatSync(layer).isDirectory(), `${layer}: it follows no link`);
  const use = cgroups.usage(cgroup);
  return {
    cgroup,
    info,
    cpuNs: use.cpuNs ?? 0n,
    memoryBytes: use.memoryUsageBytes ?? 0n,
    receivedBytes: isPod && info.pid > 0 ? receivedBy(info.pid) : undefined,
    layerBytes: bytesBelow(layer),
  };
}

function receivedBy(pid: number): bigint | undefined {
  const bytes = /^\s*eth0:\s*(\d+)/m.exec(readFileSync(`/proc/${pid}/net/dev`, 'utf8'))?.[1];
  return bytes === undefined ? undefined : BigInt(bytes);
}

function cgroupsBelow(parent: string): string[] {
  const directory = `${HIERARCHY}${parent}`;
  if (!existsSync(directory)) return [];
  return readdirSync(directory, { withFileTypes: true })
    .filter((entry) => entry.isDirectory())
    .flatMap(({ name }) => [`${parent}/${name}`, ...cgroupsBelow(`${parent}/${name}`)]);
}

function bytesBelow(directory: string): number {
  let bytes = lstatSync(directory).blocks * 512;
  for (const entry of readdirSync(directory, { withFileTypes: true })) {
    const path = join(directory, entry.name);
    bytes += entry.isDirectory() ? bytesBelow(path) : lstatSync(path).blocks * 512;
  }
  return bytes;
}
