// The API server's part towards one kubelet, played in plain HTTP and JSON: objects of any resource that
// are created, read, listed, watched, patched and deleted, without validation, admission or storage.

import { writeFileSync } from 'node:fs';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import { join } from 'node:path';
import { eventually } from '@cribus/e2e/harness/stack.ts';
import { NODE } from './kubelet.ts';
import { createObjectStore, fieldOf, KINDS, metadataOf, type ObjectStore } from './object-store.ts';
import type { Pod, PodView } from './pod.ts';
import { withPodDefaults } from './pod-defaults.ts';
import { type JsonObject, mergePatch } from './strategic-merge.ts';

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
  /** As `node.k8s.io/v1/runtimeclasses`, or `v1/pods` of the core. */
  readonly resource: string;
  readonly apiVersion: string;
  readonly namespace: string | undefined;
  readonly name: string | undefined;
  readonly subresource: string | undefined;
}

interface Call {
  readonly method: string;
  readonly target: Target;
  readonly query: URLSearchParams;
  readonly response: ServerResponse;
}

const PODS = 'v1/pods';
const EVENTS_MAX = 5000;

/** Listens on loopback; the kubeconfig is written into an existing directory. */
export async function startApiServer(directory: string): Promise<ApiServer> {
  const store = createObjectStore();
  const told: string[] = [];
  const server = createServer((request, response) => {
    answer(store, told, request, response).catch((error: unknown) =>
      reply(response, 500, failure(500, String(error))),
    );
  });
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
    ...podsOf(store),
    put: (resource, object) => void store.put(resource, object),
    object: (resource, name) => store.find(resource, name),
    events: () => told,
    close: async () => {
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}

/** What users do with pods. */
function podsOf(
  store: ObjectStore,
): Pick<ApiServer, 'runPod' | 'changePod' | 'deletePod' | 'pod' | 'podNames'> {
  const get = (name: string): JsonObject => {
    const found = store.find(PODS, name);
    if (found === undefined) throw new Error(`there is no pod ${name}`);
    return found;
  };
  return {
    runPod: ({ metadata, spec }) => {
      const bound = { ...withPodDefaults(spec as JsonObject), nodeName: NODE };
      const status = { phase: 'Pending' };
      store.put(PODS, { metadata: metadata as JsonObject, spec: bound, status });
    },
    changePod: (name, change) => {
      const found = get(name);
      const spec = withPodDefaults(change(found['spec'] as JsonObject));
      const generation = Number(metadataOf(found)['generation'] ?? 1) + 1;
      store.put(PODS, { ...found, spec, metadata: { ...metadataOf(found), generation } });
    },
    deletePod: (name) => {
      const found = get(name);
      const seconds = Number(fieldOf(found, 'spec.terminationGracePeriodSeconds') ?? 30);
      const metadata = {
        ...metadataOf(found),
        deletionTimestamp: new Date(Date.now() + seconds * 1000).toISOString(),
        deletionGracePeriodSeconds: seconds,
      };
      store.put(PODS, { ...found, metadata });
    },
    pod: (name) => store.find(PODS, name) as unknown as PodView | undefined,
    podNames: () => store.list(PODS).map((pod) => metadataOf(pod).name),
  };
}

/** Waits until the API server no longer has the pod. */
export function podGone(api: ApiServer, name: string): Promise<boolean> {
  return eventually(`${name} is gone`, async () => api.pod(name) === undefined, 60_000);
}

async function answer(
  store: ObjectStore,
  told: string[],
  request: IncomingMessage,
  response: ServerResponse,
): Promise<void> {
  const { pathname, searchParams: query } = new URL(request.url ?? '/', 'http://api');
  const target = targetOf(pathname);
  if (target === undefined) return reply(response, 404, failure(404, pathname));
  const body = await bodyOf(request);
  const call: Call = { method: request.method ?? '', target, query, response };
  if (target.subresource === 'token') return reply(response, 201, tokenFor(body));
  if (target.resource.endsWith('/events')) {
    const { reason, message, note } = body;
    if (told.length < EVENTS_MAX) told.push(`${reason}: ${message ?? note}`);
    return reply(response, 201, body);
  }
  if (call.method !== 'GET' || target.name !== undefined) {
    return reply(response, ...answerOne(store, call, body));
  }
  if (['true', '1'].includes(query.get('watch') ?? '')) return answerWatch(store, call);
  return reply(response, 200, {
    apiVersion: target.apiVersion,
    kind: `${KINDS[target.resource] ?? ''}List`,
    metadata: { resourceVersion: store.version },
    items: store.list(target.resource).filter(selected(call)),
  });
}

/** Creates, gets, replaces, patches or deletes one object: the status and the body of the answer. */
function answerOne(
  store: ObjectStore,
  { method, target }: Call,
  body: JsonObject,
): readonly [number, JsonObject] {
  const { resource, namespace, name = '' } = target;
  if (method === 'POST') {
    const metadata = { ...metadataOf(body), ...(namespace === undefined ? {} : { namespace }) };
    return [201, store.put(resource, { ...body, metadata })];
  }
  const found = store.find(resource, name, namespace);
  if (found === undefined) return [404, failure(404, `${resource} ${name}`)];
  if (method === 'DELETE') store.drop(resource, found);
  if (method === 'PUT') return [200, store.put(resource, body)];
  if (method === 'PATCH') return [200, store.put(resource, mergePatch(found, body))];
  return [200, found];
}

/** What is there already where the watcher asks for it, with a bookmark behind, and then each change. */
function answerWatch(store: ObjectStore, call: Call): void {
  const { target, query, response } = call;
  const { resource, apiVersion } = target;
  const matches = selected(call);
  const known = store.list(resource).filter(matches);
  const send = (type: string, object: JsonObject) =>
    void response.write(`${JSON.stringify({ type, object })}\n`);
  response.writeHead(200, { 'Content-Type': 'application/json' });
  response.flushHeaders();
  if (query.get('sendInitialEvents') === 'true') {
    for (const object of known) send('ADDED', object);
    const metadata = {
      resourceVersion: store.version,
      annotations: { 'k8s.io/initial-events-end': 'true' },
    };
    send('BOOKMARK', { apiVersion, kind: KINDS[resource] ?? '', metadata });
  } else {
    const since = Number(query.get('resourceVersion') ?? 0);
    for (const object of known) {
      if (Number(metadataOf(object).resourceVersion) > since) send('ADDED', object);
    }
  }
  response.on('close', store.watch({ resource, matches, send }));
}

/** By the namespace of the path and the query's `fieldSelector`. */
function selected({ target, query }: Call): (object: JsonObject) => boolean {
  const fields = (query.get('fieldSelector') ?? '').split(',').filter((field) => field !== '');
  return (object) =>
    (target.namespace ?? metadataOf(object).namespace) === metadataOf(object).namespace &&
    fields.every((field) => {
      const [path = '', value = ''] = field.split('=');
      return String(fieldOf(object, path) ?? '') === value;
    });
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
