// The JSON that crictl inspectp shows as `info`, with the keys that tools know from containerd
// (internal/cri/server, sandbox_status.go).

import type { SandboxRecord } from '@cribus/contracts/gen/node/v1/records.ts';
import { isObject } from '@cribus/contracts/network-list.ts';

export interface SandboxFacts {
  /** runc or gvisor; empty where the handler is not configured any more. */
  readonly family: string;
  readonly processAlive: boolean;
  readonly netnsPinned: boolean;
}

export function sandboxInfo(record: SandboxRecord, facts: SandboxFacts): object {
  const netns = record.namespaces?.net ?? '';
  return {
    pid: facts.processAlive ? (record.process?.pid ?? 0) : 0,
    processStatus: record.process === undefined ? '' : facts.processAlive ? 'running' : 'stopped',
    netNamespaceClosed: netns !== '' && !facts.netnsPinned,
    image: '',
    snapshotKey: '',
    snapshotter: '',
    runtimeHandler: record.requestedHandler,
    runtimeType: facts.family,
    runtimeOptions: null,
    config: snakeCase(record.config),
    runtimeSpec: {
      hostname: record.config?.hostname ?? '',
      linux: { namespaces: namespaceList(record) },
    },
    cniResult: cniResult(record),
    netnsPath: netns,
    reason: record.reason,
    directory: record.directory,
    handler: record.handler,
  };
}

/** As in an OCI spec; those of the host are left out. */
function namespaceList(record: SandboxRecord): object[] {
  const { net = '', ipc = '', uts = '', user = '' } = record.namespaces ?? {};
  return [
    { type: 'user', path: user },
    { type: 'network', path: net },
    { type: 'ipc', path: ipc },
    { type: 'uts', path: uts },
  ].filter(({ path }) => path !== '');
}

/** The result as the plugins gave it, and by interface as containerd shows it. */
function cniResult(record: SandboxRecord): object | null {
  const text = record.network?.resultJson ?? '';
  if (text === '') return null;
  const result: unknown = JSON.parse(text);
  if (!isObject(result)) return null;
  const interfaces: Record<string, { IPConfigs: object[] } & object> = {};
  const list: unknown[] = Array.isArray(result['interfaces']) ? result['interfaces'] : [];
  for (const item of list.filter(isObject)) {
    const { name, mac, sandbox } = item;
    interfaces[String(name)] = { IPConfigs: [], Mac: mac ?? '', Sandbox: sandbox ?? '' } as never;
  }
  for (const ip of (Array.isArray(result['ips']) ? result['ips'] : []).filter(isObject)) {
    const owner = typeof ip['interface'] === 'number' ? list[ip['interface']] : undefined;
    const name = isObject(owner) ? String(owner['name']) : (record.network?.interface ?? '');
    interfaces[name] ??= { IPConfigs: [] };
    const [address] = String(ip['address']).split('/');
    interfaces[name].IPConfigs.push({ IP: address, Gateway: ip['gateway'] ?? '' });
  }
  return { Interfaces: interfaces, DNS: [result['dns'] ?? {}], Routes: result['routes'] ?? null };
}

/** Maps whose keys are the user's own, and stay as they are. */
const VERBATIM = ['labels', 'annotations', 'sysctls', 'unified'];

/** Field names as CRI's Go types print them, as log_directory; empty fields are left out. */
export function snakeCase(value: unknown): unknown {
  if (typeof value === 'bigint') return Number(value);
  if (Array.isArray(value)) return value.map(snakeCase);
  if (!isObject(value)) return value;
  const out: Record<string, unknown> = {};
  for (const [key, field] of Object.entries(value)) {
    if (isEmpty(field)) continue;
    const name = key.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`);
    out[name] = VERBATIM.includes(key) ? field : snakeCase(field);
  }
  return out;
}

function isEmpty(field: unknown): boolean {
  if (field === undefined || field === '' || field === 0 || field === 0n || field === false) {
    return true;
  }
  if (Array.isArray(field)) return field.length === 0;
  return false;
}
