// The names that a log line gives the objects of a verb, so that a person can search by pod.

import type { ObjectReport } from '@cribus/contracts/gen/node/v1/records.ts';
import type { AnyRecord, RecordStore } from './records.ts';

/** Found in a request or a record, wherever they have the same shape; everything may be absent. */
interface Named {
  readonly podSandboxId?: unknown;
  readonly containerId?: unknown;
  readonly sandboxId?: unknown;
  readonly sandboxConfig?: Named;
  readonly config?: Named;
  readonly sandbox?: Named;
  readonly metadata?: { readonly name?: unknown; readonly namespace?: unknown };
  readonly sandboxProcess?: unknown;
  readonly podName?: unknown;
  readonly podNamespace?: unknown;
}

/** Fields for a log line: sandbox, pod, namespace, container_id, container; only what is known. */
export function namesOf(known: {
  readonly request: unknown;
  readonly changed: readonly ObjectReport[];
  readonly stores: readonly RecordStore<AnyRecord>[];
}): Record<string, string> {
  const names: Record<string, string> = {};
  const request = (known.request ?? {}) as Named;
  addRequest(names, request);
  for (const id of [names['container_id'], names['sandbox']]) {
    const record = id === undefined ? undefined : find(known.stores, id);
    if (record !== undefined) addRecord(names, record.id, record as Named);
  }
  for (const report of known.changed) {
    if (report.object?.$case === 'sandbox' || report.object?.$case === 'container') {
      addRecord(names, report.id, report.object.value as Named);
    }
  }
  return names;
}

function find(stores: readonly RecordStore<AnyRecord>[], id: string): AnyRecord | undefined {
  for (const store of stores) {
    const record = store.get(id);
    if (record !== undefined) return record;
  }
  return undefined;
}

function addRequest(names: Record<string, string>, request: Named): void {
  set(names, 'sandbox', request.podSandboxId);
  set(names, 'container_id', request.containerId);
  const isCreate = request.sandboxConfig !== undefined && request.config !== undefined;
  if (isCreate) set(names, 'container', request.config?.metadata?.name);
  const pod = request.sandboxConfig ?? request.sandbox?.config ?? request.config;
  set(names, 'pod', pod?.metadata?.name);
  set(names, 'namespace', pod?.metadata?.namespace);
}

/** A record of a container has its sandbox's id; that of a sandbox is the sandbox. */
function addRecord(names: Record<string, string>, id: string, record: Named): void {
  if (typeof record.sandboxId === 'string') {
    set(names, 'sandbox', record.sandboxId);
    // A sandbox's process is kept like a container, under the sandbox's id.
    if (record.sandboxProcess !== true) {
      set(names, 'container_id', id);
      set(names, 'container', record.config?.metadata?.name);
    }
    set(names, 'pod', record.podName);
    set(names, 'namespace', record.podNamespace);
    return;
  }
  set(names, 'sandbox', id);
  set(names, 'pod', record.config?.metadata?.name);
  set(names, 'namespace', record.config?.metadata?.namespace);
}

/** The first that is known stays. */
function set(names: Record<string, string>, key: string, value: unknown): void {
  if (typeof value === 'string' && value !== '') names[key] ??= value;
}
