import assert from 'node:assert/strict';
import { mkdtemp, rm, stat, writeFile } from 'node:fs/promises';
import { createServer, type Server as NetServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Bus } from '@cribus/chassis/bus.ts';
import { parseConfig } from '@cribus/chassis/config.ts';
import type { Logger } from '@cribus/chassis/log.ts';
import { createMetrics } from '@cribus/chassis/metrics.ts';
import { Failure, GRPC_CODE } from '@cribus/contracts/failure.ts';
import * as cri from '@cribus/contracts/gen/cri/v1/api.ts';
import {
  ImageServiceClient,
  ImageServiceService,
  RuntimeServiceClient,
  RuntimeServiceService,
} from '@cribus/contracts/gen/cri/v1/services.ts';
import {
  ContainerPhase,
  ContainerRecord,
  ImageRecord,
  ObjectReport,
  OwnerStatus,
  SandboxPhase,
  SandboxRecord,
} from '@cribus/contracts/gen/node/v1/records.ts';
import * as verbs from '@cribus/contracts/gen/node/v1/verbs.ts';
import {
  createFrameReader,
  encodeFrame,
  encodeJsonFrame,
  FRAME,
} from '@cribus/contracts/session.ts';
import { IMAGE_SERVICE, runtimeOwner, SANDBOX_MANAGER } from '@cribus/contracts/subjects.ts';
import { systemClock } from '@cribus/host/clock.ts';
import {
  type CallOptions,
  type Client,
  credentials,
  type MethodDefinition,
  type ServiceError,
} from '@grpc/grpc-js';
import { after, before, describe, it } from 'mocha';
import type { Gateway } from './gateway.ts';
import { type CriServer, serveCri } from './server.ts';
import type { CriMethods } from './verb-table.ts';
import { createFeed } from './view/feed.ts';
import { createNodeView } from './view/node-view.ts';
import { createOwners } from './view/owners.ts';

const silent: Logger = {
  debug: () => undefined,
  info: () => undefined,
  warn: () => undefined,
  error: () => undefined,
  child: () => silent,
};

interface Asked {
  readonly verb: string;
  readonly request: unknown;
  readonly owner: string;
}

/** The whole gateway in this process: real gRPC on a real socket, only the bus is played. */
async function startGateway(answer: (asked: Asked) => verbs.Reply | Promise<verbs.Reply>) {
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
      inventory: async (owner) => inventoryOf(owner),
      disk: async () => [],
    },
  });
  const gateway: Gateway = { config, version: '9.9.9', clock: systemClock, view, owners, feed };
  const metrics = createMetrics('cri-gateway');
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

const ID = 'ab'.repeat(32);
const CONTAINER = 'cd'.repeat(32);
const IMAGE_ID = `sha256:${'e'.repeat(64)}`;

function status(owner: string): OwnerStatus {
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

function inventoryOf(owner: string): verbs.InventoryResponse {
  const image = ImageRecord.fromPartial({ id: IMAGE_ID, repoTags: ['docker.io/library/box:1'] });
  return verbs.InventoryResponse.fromPartial({
    status: status(owner),
    objects: owner === IMAGE_SERVICE ? [report(owner, { $case: 'image', value: image })] : [],
  });
}

function report(owner: string, object: NonNullable<ObjectReport['object']>, revision = 1n) {
  const version = { epoch: 1n, revision };
  return ObjectReport.fromPartial({ owner, id: object.value.id, version, object });
}

function sandboxReport(): ObjectReport {
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

function containerReport(phase: ContainerPhase, revision: bigint): ObjectReport {
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

function reply(result: object, changed: ObjectReport[] = []): verbs.Reply {
  return { result, changed } as unknown as verbs.Reply;
}

type Request<M> = M extends { requestDeserialize(bytes: Buffer): infer Q } ? Q : never;
type Response<M> = M extends { responseDeserialize(bytes: Buffer): infer R } ? R : never;

const CODECS = { ...cri } as unknown as Readonly<
  Record<string, { fromPartial(object: object): unknown }>
>;
const METHODS = { ...RuntimeServiceService, ...ImageServiceService };

/** Calls a method by its name; the request may leave out what it doesn't care for. */
async function ask<K extends keyof CriMethods>(
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

describe('the gateway over its socket', () => {
  let session: NetServer;
  let world: Awaited<ReturnType<typeof startGateway>>;
  let secrets: Buffer[] = [];

  const answer = async ({ verb, request }: Asked): Promise<verbs.Reply> => {
    switch (verb) {
      case 'run-pod-sandbox':
        return reply({ podSandboxId: ID }, [sandboxReport()]);
      case 'create-container':
        return reply({ containerId: CONTAINER }, [containerReport(ContainerPhase.CREATED, 1n)]);
      case 'start-container':
        return reply({}, [containerReport(ContainerPhase.RUNNING, 2n)]);
      case 'exec-sync':
        return reply({
          socketPath: join(world.directory, 's'),
          secret: Buffer.alloc(16, (request as verbs.ExecSyncRequest).cmd[0] ?? ''),
        });
      case 'pull-image':
        throw new Failure('kubelet_reason', 'RegistryUnavailable: nobody answers at 127.0.0.1');
      case 'stop-container':
        return new Promise(() => undefined);
      case 'remove-container':
        throw new TypeError('x is not a function');
      case 'describe':
        throw new Failure('unavailable', 'handler "runc" is unavailable: its worker is stopping');
      default:
        throw new Failure('bug', `unexpected ${verb}`);
    }
  };

  before(async () => {
    world = await startGateway(answer);
    session = createServer((socket) => {
      const read = createFrameReader((type, payload) => {
        assert.equal(type, FRAME.secret);
        secrets.push(Buffer.from(payload));
        if (payload.includes('t')) {
          const failure = { kind: 'timeout', message: 'killed after 1 s' };
          socket.end(encodeJsonFrame(FRAME.failure, failure));
          return;
        }
        const piece = Buffer.alloc(1024 * 1024, 'o');
        for (let i = 0; i < 20; i += 1) socket.write(encodeFrame(FRAME.stdout, piece));
        socket.write(encodeFrame(FRAME.stderr, Buffer.from('lost')));
        socket.end(encodeJsonFrame(FRAME.exit, { exitCode: 7 }));
      });
      socket.on('data', read);
      socket.on('error', () => undefined);
    });
    await new Promise<void>((resolve) => session.listen(join(world.directory, 's'), resolve));
  });

  after(async () => {
    session.close();
    await world.close();
  });

  it('has a socket for root alone, and refuses a second server on it', async () => {
    assert.equal((await stat(world.config.gateway.socket)).mode & 0o777, 0o600);
    await assert.rejects(
      () =>
        serveCri({ gateway: world.gateway, bus: world.bus, log: silent, metrics: world.metrics }),
      /another server answers/,
    );
  });

  it('answers UNAVAILABLE with the missing owners before the view is primed', async () => {
    // The loops run in the background; this call may come before or after them, so ask a fresh one.
    const fresh = createFeed({
      view: world.gateway.view,
      owners: world.gateway.owners,
      clock: systemClock,
      log: silent,
      signal: AbortSignal.abort(),
      configuredHandlers: ['runc'],
      background: () => undefined,
      sources: {
        mirror: async () => undefined,
        inventory: () => Promise.reject(new Failure('unavailable', 'away')),
        disk: async () => [],
      },
    });
    assert.throws(
      () => fresh.requirePrimed(),
      /waiting for image-service, sandbox-manager, runtime\.runc/,
    );
    assert.deepEqual((await ask(world.runtime, 'listContainers', {})).containers, []);
  });

  it('runs a pod, and reads its own writes', async () => {
    const { runtime } = world;
    const config = { metadata: { name: 'pod', uid: 'u', namespace: 'n', attempt: 0 } };
    const { podSandboxId } = await ask(runtime, 'runPodSandbox', { config, runtimeHandler: '' });
    assert.equal(podSandboxId, ID);
    const sandboxes = await ask(runtime, 'listPodSandbox', {});
    assert.deepEqual(
      sandboxes.items.map((item) => [item.id, item.labels]),
      [[ID, { a: '1' }]],
    );
    const image = { image: IMAGE_ID, annotations: {} };
    await ask(runtime, 'createContainer', {
      podSandboxId: ID.slice(0, 12),
      config: { metadata: { name: 'c', attempt: 0 }, image },
    });
    await ask(runtime, 'startContainer', { containerId: CONTAINER });
    const { containers } = await ask(runtime, 'listContainers', {});
    assert.equal(containers[0]?.state, cri.ContainerState.CONTAINER_RUNNING);
    const pod = await ask(runtime, 'podSandboxStatus', {
      podSandboxId: ID,
      verbose: false,
    });
    assert.deepEqual(pod.status?.network, { ip: '10.0.0.2', additionalIps: [{ ip: 'fd00::2' }] });
    assert.equal(pod.containersStatuses[0]?.image?.image, 'docker.io/library/box:1');
    assert.equal(pod.containersStatuses[0]?.imageId, IMAGE_ID);
    assert.ok(pod.timestamp > 0n);
    const created = world.asked.find((item) => item.verb === 'create-container');
    assert.equal((created?.request as { podSandboxId?: string } | undefined)?.podSandboxId, ID);
    assert.equal(created?.owner, 'runtime.runc');
  });

  it('collects a command’s output up to the largest message and its exit code', async () => {
    const client = new RuntimeServiceClient(
      `unix:${world.config.gateway.socket}`,
      credentials.createInsecure(),
      { 'grpc.max_receive_message_length': 16 * 1024 * 1024 },
    );
    const output = await ask(client, 'execSync', {
      containerId: CONTAINER,
      cmd: ['big'],
      timeout: 0n,
    });
    client.close();
    assert.equal(output.exitCode, 7);
    assert.equal(output.stdout.length + output.stderr.length, 16 * 1024 * 1024 - 64 * 1024);
    await assert.rejects(
      ask(world.runtime, 'execSync', { containerId: CONTAINER, cmd: ['t'], timeout: 1n }),
      (error: ServiceError) => error.code === GRPC_CODE.DEADLINE_EXCEEDED,
    );
    assert.equal(secrets.length, 2);
    secrets = [];
  });

  it('maps what owners raise, and tells bugs by an incident only', async () => {
    await assert.rejects(
      ask(world.images, 'pullImage', { image: { image: 'x' } }),
      (error: ServiceError) =>
        error.code === GRPC_CODE.UNKNOWN &&
        /^RegistryUnavailable: nobody answers.* \(request [0-9a-f-]{36}\)$/.test(error.details),
    );
    await assert.rejects(
      ask(world.runtime, 'removeContainer', { containerId: CONTAINER }),
      (error: ServiceError) =>
        error.code === GRPC_CODE.INTERNAL &&
        /^internal error, incident [0-9a-f-]{36} /.test(error.details) &&
        !error.details.includes('not a function'),
    );
    const text = await world.metrics.registry.metrics();
    assert.match(text, /cribus_cri_requests_total\{verb="PullImage",code="UNKNOWN"[^}]*\} 1/);
    assert.match(text, /cribus_bugs_total\{verb="RemoveContainer"[^}]*\} 1/);
  });

  it('ends a wait at the caller’s deadline', async () => {
    const deadline = Number(systemClock.nowNs() / 1_000_000n) + 150;
    await assert.rejects(
      ask(world.runtime, 'stopContainer', { containerId: CONTAINER, timeout: 0n }, { deadline }),
      (error: ServiceError) => error.code === GRPC_CODE.DEADLINE_EXCEEDED,
    );
  });

  it('answers a verbose status without its info, and says why, while the owner is away', async () => {
    const { status, info } = await ask(world.runtime, 'containerStatus', {
      containerId: CONTAINER,
      verbose: true,
    });
    assert.equal(status?.id, CONTAINER);
    assert.match(JSON.parse(info['note'] ?? '""'), /its worker is stopping/);
    const pod = await ask(world.runtime, 'podSandboxStatus', { podSandboxId: ID, verbose: true });
    assert.equal(pod.status?.id, ID);
    assert.deepEqual(Object.keys(pod.info), ['note']);
  });

  it('checks arguments first, and knows absent from unknown', async () => {
    const { runtime, images } = world;
    const codeOf = async (work: Promise<unknown>): Promise<string> =>
      work.then(
        () => 'OK',
        (error: ServiceError) => `${error.code} ${error.details}`,
      );
    const cases: [() => Promise<unknown>, RegExp][] = [
      [() => ask(runtime, 'runPodSandbox', {}), /^3 config is missing/],
      [() => ask(runtime, 'runPodSandbox', { config: {} }), /^3 config.metadata is missing/],
      [
        () =>
          ask(runtime, 'runPodSandbox', {
            config: { metadata: { name: 'p' } },
            runtimeHandler: 'kata',
          }),
        /^3 no runtime for "kata" is configured; known: runc/,
      ],
      [() => ask(runtime, 'stopContainer', { containerId: '' }), /^3 container_id/],
      [() => ask(runtime, 'stopContainer', { containerId: 'nope' }), /^OK/],
      [() => ask(runtime, 'removePodSandbox', { podSandboxId: 'nope' }), /^OK/],
      [() => ask(runtime, 'startContainer', { containerId: 'nope' }), /^5 container "nope"/],
      [
        () => ask(runtime, 'podSandboxStatus', { podSandboxId: 'nope', verbose: false }),
        /^5 sandbox "nope" does not exist/,
      ],
      [
        () => ask(runtime, 'createContainer', { podSandboxId: ID, config: {} }),
        /^3 config.metadata is missing/,
      ],
      [() => ask(images, 'pullImage', {}), /^3 image is missing/],
      [() => ask(runtime, 'attach', { containerId: CONTAINER }), /^12 Attach: /],
    ];
    for (const [work, expected] of cases) assert.match(await codeOf(work()), expected);
    const absent = await ask(images, 'imageStatus', {
      image: { image: 'absent', annotations: {} },
    });
    assert.equal(absent.image, undefined);
  });

  it('refuses a streamed verb with the same code', async () => {
    const stream = world.images.streamImages(cri.StreamImagesRequest.fromPartial({}));
    const error = await new Promise<ServiceError>((resolve) => {
      stream.on('data', () => undefined);
      stream.on('error', (raised) => resolve(raised as ServiceError));
    });
    assert.equal(error.code, GRPC_CODE.UNIMPLEMENTED);
    assert.match(error.details, /StreamImages: /);
  });

  it('says what it is, what is ready and what each handler can do', async () => {
    const { runtime } = world;
    const version = await ask(runtime, 'version', { version: '0.1.0' });
    assert.deepEqual(version, {
      version: '0.1.0',
      runtimeName: 'cribus',
      runtimeVersion: '9.9.9',
      runtimeApiVersion: 'v1',
    });
    const answered = await ask(runtime, 'status', { verbose: true });
    assert.deepEqual(
      answered.status?.conditions.map((item) => [item.type, item.status]),
      [
        ['RuntimeReady', true],
        ['NetworkReady', true],
      ],
    );
    assert.deepEqual(
      answered.runtimeHandlers.map((item) => [item.name, item.features?.recursiveReadOnlyMounts]),
      [
        ['', true],
        ['runc', true],
      ],
    );
    assert.deepEqual(JSON.parse(answered.info['warnings'] ?? ''), ['no AppArmor here']);
    for (const text of Object.values(answered.info)) JSON.parse(text);
  });

  it('takes over the socket of a server that was killed', async () => {
    const path = join(world.directory, 'stale.sock');
    await writeFile(path, '');
    const config = { ...world.config, gateway: { ...world.config.gateway, socket: path } };
    const second: CriServer = await serveCri({
      gateway: { ...world.gateway, config },
      bus: world.bus,
      log: silent,
      metrics: createMetrics('other'),
    });
    assert.ok((await stat(path)).isSocket());
    await second.close(systemClock.timeout(100));
  });
});
