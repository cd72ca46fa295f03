// The objects that an API server keeps, each with a version, and those who watch them.

import { randomUUID } from 'node:crypto';
import { isObject, type Json, type JsonObject } from './strategic-merge.ts';

export interface Metadata extends JsonObject {
  readonly name: string;
  readonly namespace?: string;
  readonly resourceVersion?: string;
}

export interface Watch {
  /** As `node.k8s.io/v1/runtimeclasses`, or `v1/pods` of the core. */
  readonly resource: string;
  readonly matches: (object: JsonObject) => boolean;
  readonly send: (type: 'ADDED' | 'MODIFIED' | 'DELETED', object: JsonObject) => void;
}

export interface ObjectStore {
  /** Of the last change. */
  readonly version: string;
  /** Adds the object, or replaces the one of its name but for what of its metadata is not given. */
  put(resource: string, object: JsonObject): JsonObject;
  drop(resource: string, object: JsonObject): void;
  /** The namespace is left out for what has none, and for `default`. */
  find(resource: string, name: string, namespace?: string): JsonObject | undefined;
  list(resource: string): readonly JsonObject[];
  /** Tells of every change from now on; the answer ends it. */
  watch(watch: Watch): () => void;
}

/** Resource to kind, of those that a kubelet asks for and reads the kind of. */
export const KINDS: Readonly<Record<string, string>> = {
  'v1/pods': 'Pod',
  'v1/nodes': 'Node',
  'v1/services': 'Service',
  'v1/configmaps': 'ConfigMap',
  'v1/secrets': 'Secret',
  'v1/serviceaccounts': 'ServiceAccount',
  'node.k8s.io/v1/runtimeclasses': 'RuntimeClass',
  'coordination.k8s.io/v1/leases': 'Lease',
  'storage.k8s.io/v1/csinodes': 'CSINode',
  'storage.k8s.io/v1/csidrivers': 'CSIDriver',
};

export function createObjectStore(): ObjectStore {
  const objects = new Map<string, JsonObject>();
  const watches = new Set<Watch>();
  let version = 1;
  const publish = (resource: string, ...event: Parameters<Watch['send']>) => {
    for (const watch of watches) {
      if (watch.resource === resource && watch.matches(event[1])) watch.send(...event);
    }
  };
  return {
    get version() {
      return String(version);
    },
    put: (resource, given) => {
      version += 1;
      const key = keyOf(resource, metadataOf(given));
      const former = objects.get(key);
      const object: JsonObject = {
        apiVersion: resource.slice(0, resource.lastIndexOf('/')),
        kind: KINDS[resource] ?? 'Unknown',
        ...given,
        metadata: {
          uid: randomUUID(),
          creationTimestamp: new Date().toISOString(),
          ...(former === undefined ? {} : metadataOf(former)),
          ...metadataOf(given),
          resourceVersion: String(version),
        },
      };
      objects.set(key, object);
      publish(resource, former === undefined ? 'ADDED' : 'MODIFIED', object);
      return object;
    },
    drop: (resource, object) => {
      version += 1;
      objects.delete(keyOf(resource, metadataOf(object)));
      const metadata = { ...metadataOf(object), resourceVersion: String(version) };
      publish(resource, 'DELETED', { ...object, metadata });
    },
    find: (resource, name, namespace = 'default') =>
      objects.get(keyOf(resource, { name, namespace })) ?? objects.get(keyOf(resource, { name })),
    list: (resource) =>
      [...objects].filter(([key]) => key.startsWith(`${resource} `)).map(([, object]) => object),
    watch: (watch) => {
      watches.add(watch);
      return () => watches.delete(watch);
    },
  };
}

function keyOf(resource: string, { namespace, name }: Metadata): string {
  return [resource, namespace ?? '', name].join(' ');
}

export function metadataOf(object: JsonObject): Metadata {
  return object['metadata'] as Metadata;
}

/** The value at a path as `spec.nodeName`. */
export function fieldOf(object: JsonObject, path: string): Json | undefined {
  return path
    .split('.')
    .reduce<Json | undefined>((value, key) => (isObject(value) ? value[key] : undefined), object);
}
