// The API server's part towards one kubelet, played in plain HTTP and JSON: objects of any resource that
// are created, read, listed, watched, patched and deleted, without validation, admission or storage.

import { randomUUID } from 'node:crypto';
import { writeFileSync } from 'node:fs';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import { join } from 'node:path';
import { eventually } from '@cribus/e2e/harness/stack.ts';
import { NODE } from './kubelet.ts';
import type { Pod, PodView } from './pod.ts';
import { withPodDefaults } from './pod-defaults.ts';
import { isObject, type Json, type JsonObject, mergePatch } from './strategic-merge.ts';

export interface ApiServer {
  readonly kubeconfig: string;
  /** Adds an object, or changes the one of its name. */
  put(resource: string, object: JsonObject): void;
  /** Adds a pod that is bound to the node. */
  runPod(pod: Pod): void;
  /** Changes a pod's specification, as the API's sub-resources do. */
  changePod(name: string, change: (spec: JsonObject) => JsonObject): void;
  /** As kubectl does: the pod goes when the kubelet says that it has ended. */
  deletePod(name: string): void;
  pod(name: string): PodView | undefined;
  podNames(): readonly string[];
  object(resource: string, name: string): JsonObject | undefined;
  /** What the kubelet has told as events, as `Started: Container started`. */
  events(): readonly string[];
  close(): Promise<void>;
}

interface Target {
  /** As `apps/v1/daemonsets`, or `v1/pods` of the core. */
  readonly resource: string;
  readonly apiVersion: string;
  readonly namespace: string | undefined;
  readonly name: string | undefined;
  readonly subresource: string | undefined;
}

interface Watch {
  readonly resource: string;
  readonly matches: (object: JsonObject) => boolean;
  readonly send: (type: string, object: JsonObject) => void;
}

/** Written as lists name it; other resources are named by their own. */
const KINDS: Readonly<Record<string, string>> = {
  'v1/pods': 'Pod',
  'v1/nodes': 'Node',
  'v1/services': 'Service',
  'v1/configmaps': 'ConfigMap',
  'v1/secrets': 'Secret',
  'v1/serviceaccounts': 'ServiceAccount',
  'v1/events': 'Event',
  'node.k8s.io/v1/runtimeclasses': 'RuntimeClass',
  'coordination.k8s.io/v1/leases': 'Lease',
  'storage.k8s.io/v1/csinodes': 'CSINode',
  'storage.k8s.io/v1/csidrivers': 'CSIDriver',
};
const EVENTS_MAX = 5000;

/** Listens on loopback; the kubeconfig is written into an existing directory. */
export async function startApiServer(directory: string): Promise<ApiServer> {
  const objects = new Map<string, JsonObject>();
  const watches = new Set<Watch>();
  const told: string[] = [];
  let version = 1;

  const keyOf = (resource: string, object: JsonObject) => {
    const { namespace, name } = metadataOf(object);
    return [resource, namespace ?? '', name].join(' ');
  };
  const store = (resource: string, given: JsonObject): JsonObject => {
    version += 1;
    const former = objects.get(keyOf(resource, given));
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
    objects.set(keyOf(resource, object), object);
    publish(resource, former === undefined ? 'ADDED' : 'MODIFIED', object);
    return object;
  };
  const publish = (resource: string, type: string, object: JsonObject) => {
    for (const watch of watches) {
      if (watch.resource === resource && watch.matches(object)) watch.send(type, object);
    }
  };
  const drop = (resource: string, object: JsonObject) => {
    version += 1;
    objects.delete(keyOf(resource, object));
    const metadata = { ...metadataOf(object), resourceVersion: String(version) };
    publish(resource, 'DELETED', { ...object, metadata });
  };
  const find = (resource: string, name: string, namespace = 'default') =>
    objects.get([resource, namespace, name].join(' ')) ??
    objects.get([resource, '', name].join(' '));
  const podOf = (name: string): JsonObject => {
    const found = find('v1/pods', name);
    if (found === undefined) throw new Error(`there is no pod ${name}`);
    return found;
  };

  const server = createServer((request, response) => {
    void answer(request, response).catch((error: unknown) =>
      reply(response, 500, failure(500, String(error))),
    );
  });
  const answer = async (request: IncomingMessage, response: ServerResponse) => {
    const url = new URL(request.url ?? '/', 'http://api');
    const target = targetOf(url.pathname);
    if (target === undefined) return reply(response, 404, failure(404, url.pathname));
    const body = await bodyOf(request);
    if (request.method === 'GET' && target.name === undefined) {
      return url.searchParams.get('watch') === null || url.searchParams.get('watch') === 'false'
        ? list(target, url, response)
        : watch(target, url, request, response);
    }
    return change(request.method ?? '', target, body, response);
  };
  const selected = (target: Target, url: URL) => {
    const fields = (url.searchParams.get('fieldSelector') ?? '').split(',').filter(Boolean);
    return (object: JsonObject) =>
      (target.namespace ?? metadataOf(object).namespace) === metadataOf(object).namespace &&
      fields.every((field) => {
        const [path = '', value = ''] = field.split('=');
        return String(fieldOf(object, path) ?? '') === value;
      });
  };
  const matching = (target: Target, url: URL) =>
    [...objects]
      .filter(([key]) => key.startsWith(`${target.resource} `))
      .map(([, object]) => object)
      .filter(selected(target, url));
  const list = (target: Target, url: URL, response: ServerResponse) =>
    reply(response, 200, {
      apiVersion: target.apiVersion,
      kind: `${KINDS[target.resource] ?? ''}List`,
      metadata: { resourceVersion: String(version) },
      items: matching(target, url),
    });
  const watch = (target: Target, url: URL, request: IncomingMessage, response: ServerResponse) => {
    response.writeHead(200, { 'Content-Type': 'application/json' });
    const send = (type: string, object: JsonObject) =>
      void response.write(`${JSON.stringify({ type, object })}\n`);
    if (url.searchParams.get('sendInitialEvents') === 'true') {
      for (const object of matching(target, url)) send('ADDED', object);
      send('BOOKMARK', {
        apiVersion: target.apiVersion,
        kind: KINDS[target.resource] ?? '',
        metadata: {
          resourceVersion: String(version),
          annotations: { 'k8s.io/initial-events-end': 'true' },
        },
      });
    } else {
      const since = Number(url.searchParams.get('resourceVersion') ?? 0);
      for (const object of matching(target, url)) {
        if (Number(metadataOf(object).resourceVersion) > since) send('ADDED', object);
      }
    }
    const watching = { resource: target.resource, matches: selected(target, url), send };
    watches.add(watching);
    request.on('close', () => watches.delete(watching));
    response.flushHeaders();
  };
  const change = (method: string, target: Target, body: JsonObject, response: ServerResponse) => {
    const { resource, namespace, name } = target;
    if (target.subresource === 'token') return reply(response, 201, tokenFor(body));
    if (resource.endsWith('/events')) {
      if (told.length < EVENTS_MAX)
        told.push(`${body['reason']}: ${body['message'] ?? body['note']}`);
      return reply(response, 201, body);
    }
    if (method === 'POST') {
      const metadata = { ...metadataOf(body), ...(namespace === undefined ? {} : { namespace }) };
      return reply(response, 201, store(resource, { ...body, metadata }));
    }
    const found = find(resource, name ?? '', namespace);
    if (found === undefined) return reply(response, 404, failure(404, `${resource} ${name}`));
    if (method === 'GET') return reply(response, 200, found);
    if (method === 'DELETE') {
      drop(resource, found);
      return reply(response, 200, found);
    }
    const changed = method === 'PUT' ? body : mergePatch(found, body);
    return reply(response, 200, store(resource, changed));
  };

  const port = await new Promise<number>((resolve) => {
    server.listen(0, '127.0.0.1', () => {
      const address = server.address();
      resolve(typeof address === 'object' ? (address?.port ?? 0) : 0);
    });
  });
  const kubeconfig = join(directory, 'kubeconfig.json');
  writeFileSync(kubeconfig, JSON.stringify(kubeconfigOf(`http://127.0.0.1:${port}`)));
  return {
    kubeconfig,
    put: (resource, object) => void store(resource, object),
    runPod: ({ metadata, spec }) => {
      const bound = { ...withPodDefaults(spec as JsonObject), nodeName: NODE };
      const status = { phase: 'Pending' };
      store('v1/pods', { metadata: metadata as JsonObject, spec: bound, status });
    },
    changePod: (name, changeSpec) => {
      const found = podOf(name);
      const spec = withPodDefaults(changeSpec(found['spec'] as JsonObject));
      const generation = Number(metadataOf(found)['generation'] ?? 1) + 1;
      store('v1/pods', { ...found, spec, metadata: { ...metadataOf(found), generation } });
    },
    deletePod: (name) => {
      const found = podOf(name);
      const seconds = fieldOf(found, 'spec.terminationGracePeriodSeconds') ?? 30;
      const metadata = {
        ...metadataOf(found),
        deletionTimestamp: new Date(Date.now() + Number(seconds) * 1000).toISOString(),
        deletionGracePeriodSeconds: seconds,
      };
      store('v1/pods', { ...found, metadata });
    },
    pod: (name) => find('v1/pods', name) as unknown as PodView | undefined,
    podNames: () =>
      [...objects]
        .filter(([key]) => key.startsWith('v1/pods '))
        .map(([, one]) => metadataOf(one).name),
    object: (resource, name) => find(resource, name),
    events: () => told,
    close: async () => {
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}

/** Waits until the API server no longer has the pod. */
export function podGone(api: ApiServer, name: string): Promise<boolean> {
  return eventually(`${name} is gone`, async () => api.pod(name) === undefined, 60_000);
}

interface Metadata extends JsonObject {
  readonly name: string;
  readonly namespace?: string;
  readonly resourceVersion?: string;
}

function metadataOf(object: JsonObject): Metadata {
  return object['metadata'] as Metadata;
}

function fieldOf(object: JsonObject, path: string): Json | undefined {
  return path
    .split('.')
    .reduce<Json | undefined>((value, key) => (isObject(value) ? value[key] : undefined), object);
}

/** /api/v1/…, /apis/GROUP/VERSION/…, with or without namespaces/NAME/ in front of the resource. */
function targetOf(path: string): Target | undefined {
  const match =
    /^\/(?:api\/(v1)|apis\/([^/]+\/[^/]+))\/(?:namespaces\/([^/]+)\/(?=.))?([^/]+)(?:\/([^/]+))?(?:\/([^/]+))?$/.exec(
      path,
    );
  if (match === null) return undefined;
  const [, core, group, namespace, plural = '', name, subresource] = match;
  const apiVersion = core ?? group ?? '';
  return { resource: `${apiVersion}/${plural}`, apiVersion, namespace, name, subresource };
}

async function bodyOf(request: IncomingMessage): Promise<JsonObject> {
  const pieces: Buffer[] = [];
  for await (const piece of request) pieces.push(piece as Buffer);
  const text = Buffer.concat(pieces).toString();
  return text === '' ? {} : (JSON.parse(text) as JsonObject);
}

function reply(response: ServerResponse, status: number, body: JsonObject): void {
  response.writeHead(status, { 'Content-Type': 'application/json' });
  response.end(JSON.stringify(body));
}

function failure(code: number, message: string): JsonObject {
  const reason = code === 404 ? 'NotFound' : 'InternalError';
  return { apiVersion: 'v1', kind: 'Status', status: 'Failure', code, reason, message };
}

/** A TokenRequest with an answer; nobody checks the token. */
function tokenFor(request: JsonObject): JsonObject {
  const expirationTimestamp = new Date(Date.now() + 3_600_000).toISOString();
  return { ...request, status: { token: 'token-of-the-service-account', expirationTimestamp } };
}

function kubeconfigOf(server: string): JsonObject {
  return {
    apiVersion: 'v1',
    kind: 'Config',
    clusters: [{ name: 'played', cluster: { server } }],
    users: [{ name: 'kubelet', user: {} }],
    contexts: [{ name: 'played', context: { cluster: 'played', user: 'kubelet' } }],
    'current-context': 'played',
  };
}
