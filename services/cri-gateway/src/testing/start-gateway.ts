import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Bus } from '@cribus/chassis/bus.ts';
import { parseConfig } from '@cribus/chassis/config.ts';
import type { Logger } from '@cribus/chassis/log.ts';
import { createMetrics } from '@cribus/chassis/metrics.ts';
import * as cri from '@cribus/contracts/gen/cri/v1/api.ts';
import {
  ImageServiceClient,
  ImageServiceService,
  RuntimeServiceClient,
  RuntimeServiceService,
} from '@cribus/contracts/gen/cri/v1/services.ts';
import {
  type ContainerPhase,
  ContainerRecord,
  ImageRecord,
  ObjectReport,
  OwnerStatus,
  SandboxPhase,
  SandboxRecord,
} from '@cribus/contracts/gen/node/v1/records.ts';
import * as verbs from '@cribus/contracts/gen/node/v1/verbs.ts';
import {
  HEARTBEAT_INTERVAL_MS,
  IMAGE_SERVICE,
  runtimeOwner,
  SANDBOX_MANAGER,
} from '@cribus/contracts/subjects.ts';
import { systemClock } from '@cribus/host/clock.ts';
import { type CallOptions, type Client, credentials, type MethodDefinition } from '@grpc/grpc-js';
import { createEventHub } from '../events/event-hub.ts';
import type { Gateway } from '../gateway.ts';
import { serveCri } from '../server.ts';
import { createStatistics } from '../stats/statistics.ts';
import type { CriMethods } from '../verb-table.ts';
import { createFeed } from '../view/feed.ts';
import { createNodeView } from '../view/node-view.ts';
import { createOwners } from '../view/owners.ts';

export const silent: Logger = {
  debug: () => undefined,
  info: () => undefined,
  warn: () => undefined,
  error: () => undefined,
  child: () => silent,
};

export interface Asked {
  readonly verb: string;
  readonly request: unknown;
  readonly owner: string;
}

/** Those who were heard once go on beating, however slow the machine is. */
const OWNERS = [IMAGE_SERVICE, SANDBOX_MANAGER, runtimeOwner('runc')];

/** The whole gateway in this process: real gRPC on a real socket, only the bus is played. */
export async function startGateway(
  answer: (asked: Asked) => verbs.Reply | Promise<verbs.Reply> = () => reply({}),
  inventory: (owner: string) => Promise<verbs.InventoryResponse> = async (owner) =>
    inventoryOf(owner),
) {
  const directory = await mkdtemp(join(tmpdir(), 'cribus gateway:'));
  const config = parseConfig('[runtimes.handlers.runc]\nfamily = "runc"\nengine = "runc"\n', {
    file: 'test',
    directory,
  });
  const stopping = new AbortController();
  const asked: Asked[] = [];
  const bus = {
    node: 'node',
    connected: () => true,
    ask: async (
      verb: string,
      request: unknown,
      options: { owner: string; signal: AbortSignal },
    ) => {
      const ask = { verb, request, owner: options.owner };
      asked.push(ask);
      const reply = await Promise.race([
        Promise.resolve(answer(ask)),
        new Promise<never>((_resolve, reject) => {
          options.signal.addEventListener('abort', () => reject(options.signal.reason));
        }),
      ]);
      return { result: (reply as unknown as { result: unknown }).result, changed: reply.changed };
    },
  } as unknown as Bus;
  const view = createNodeView(systemClock);
  const owners = createOwners({
    clock: systemClock,
    busConnected: () => true,
    configuredHandlers: ['runc'],
  });
  const feed = createFeed({
    view,
    owners,
    clock: systemClock,
    log: silent,
    signal: stopping.signal,
    configuredHandlers: ['runc'],
    background: (_name, work) => void work,
    sources: {
      mirror: async () => undefined,
      inventory,
      disk: async () => [],
    },
  });
  const beat = async (): Promise<void> => {
    while (!stopping.signal.aborted) {
      await systemClock.sleep(HEARTBEAT_INTERVAL_MS, stopping.signal).catch(() => undefined);
      for (const owner of OWNERS) if (owners.isAlive(owner)) owners.heard(status(owner));
    }
  };
  void beat();
  const metrics = createMetrics('cri-gateway');
  const events = createEventHub({ view, clock: systemClock, metrics });
  const gateway: Gateway = {
    config,
    version: '9.9.9',
    clock: systemClock,
    view,
    owners,
    feed,
    statistics: createStatistics({
      view,
      owners,
      clock: systemClock,
      stopping: stopping.signal,
      background: (_name, work) => void work,
      ask: async (verb, request, options) =>
        (await bus.ask(verb, request, { ...options, requestId: 'statistics' })).result,
      log: silent,
    }),
    streamUrl: ({ kind }) => `http://127.0.0.1:1/${kind}/token`,
    events,
  };
  const server = await serveCri({ gateway, bus, log: silent, metrics });
  const address = `unix:${config.gateway.socket}`;
  const runtime = new RuntimeServiceClient(address, credentials.createInsecure());
  const images = new ImageServiceClient(address, credentials.createInsecure());
  const close = async (): Promise<void> => {
    runtime.close();
    images.close();
    stopping.abort();
    await server.close(systemClock.timeout(500));
    await rm(directory, { recursive: true });
  };
  return { runtime, images, gateway, asked, close, directory, metrics, config, bus };
}

export const ID = 'ab'.repeat(32);
export const CONTAINER = 'cd'.repeat(32);
export const IMAGE_ID = `sha256:${'e'.repeat(64)}`;

export function status(owner: string): OwnerStatus {
  return OwnerStatus.fromPartial({
    owner,
    epoch: 1n,
    sequence: 0n,
    version: '0.1.0',
    warnings: owner === SANDBOX_MANAGER ? ['no AppArmor here'] : [],
    conditions:
      owner === SANDBOX_MANAGER
        ? [{ type: 'NetworkReady', status: true, reason: '', message: '' }]
        : [],
    ...(owner === runtimeOwner('runc')
      ? { handler: { name: 'runc', family: 'runc', recursiveReadOnlyMounts: true } }
      : {}),
  });
}

export function inventoryOf(owner: string): verbs.InventoryResponse {
  const image = ImageRecord.fromPartial({ id: IMAGE_ID, repoTags: ['docker.io/library/box:1'] });
  return verbs.InventoryResponse.fromPartial({
    status: status(owner),
    objects: owner === IMAGE_SERVICE ? [report(owner, { $case: 'image', value: image })] : [],
  });
}

export function report(owner: string, object: NonNullable<ObjectReport['object']>, revision = 1n) {
  const version = { epoch: 1n, revision };
  return ObjectReport.fromPartial({ owner, id: object.value.id, version, object });
}

export function sandboxReport(): ObjectReport {
  const value = SandboxRecord.fromPartial({
    id: ID,
    handler: 'runc',
    config: { metadata: { name: 'pod', uid: 'u', namespace: 'n' }, labels: { a: '1' } },
    phase: SandboxPhase.READY,
    createdAtNs: 5n,
    network: { ips: ['10.0.0.2', 'fd00::2'] },
  });
  return report(SANDBOX_MANAGER, { $case: 'sandbox', value });
}

export function containerReport(phase: ContainerPhase, revision: bigint): ObjectReport {
  const value = ContainerRecord.fromPartial({
    id: CONTAINER,
    sandboxId: ID,
    handler: 'runc',
    config: { metadata: { name: 'c' }, image: { image: IMAGE_ID } },
    imageId: IMAGE_ID,
    phase,
    createdAtNs: 6n,
    logPath: '/var/log/pods/x/c/0.log',
  });
  return report(runtimeOwner('runc'), { $case: 'container', value }, revision);
}

export function reply(result: object, changed: ObjectReport[] = []): verbs.Reply {
  return { result, changed } as unknown as verbs.Reply;
}

type Request<M> = M extends { requestDeserialize(bytes: Buffer): infer Q } ? Q : never;
type Response<M> = M extends { responseDeserialize(bytes: Buffer): infer R } ? R : never;

const CODECS = { ...cri } as unknown as Readonly<
  Record<string, { fromPartial(object: object): unknown }>
>;
const METHODS = { ...RuntimeServiceService, ...ImageServiceService };

/** Calls a method by its name; the request may leave out what it doesn't care for. */
export async function ask<K extends keyof CriMethods>(
  client: Client,
  name: K,
  request: object,
  options: CallOptions = {},
): Promise<Response<CriMethods[K]>> {
  const method = METHODS[name] as unknown as MethodDefinition<
    Request<CriMethods[K]>,
    Response<CriMethods[K]>
  >;
  const message = `${method.path.slice(method.path.lastIndexOf('/') + 1)}Request`;
  return new Promise((resolve, reject) => {
    client.makeUnaryRequest(
      method.path,
      method.requestSerialize,
      method.responseDeserialize,
      CODECS[message]?.fromPartial(request) as Request<CriMethods[K]>,
      options,
      (error, response) => {
        if (error !== null || response === undefined) reject(error);
        else resolve(response);
      },
    );
  });
}
