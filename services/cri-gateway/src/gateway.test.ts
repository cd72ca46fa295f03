import assert from 'node:assert/strict';
import { stat, writeFile } from 'node:fs/promises';
import { createServer, type Server as NetServer } from 'node:net';
import { join } from 'node:path';
import { createMetrics } from '@cribus/chassis/metrics.ts';
import { Failure, GRPC_CODE } from '@cribus/contracts/failure.ts';
import * as cri from '@cribus/contracts/gen/cri/v1/api.ts';
import { RuntimeServiceClient } from '@cribus/contracts/gen/cri/v1/services.ts';
import { ContainerPhase } from '@cribus/contracts/gen/node/v1/records.ts';
import type * as verbs from '@cribus/contracts/gen/node/v1/verbs.ts';
import {
  createFrameReader,
  encodeFrame,
  encodeJsonFrame,
  FRAME,
} from '@cribus/contracts/session.ts';
import { systemClock } from '@cribus/host/clock.ts';
import { credentials, type ServiceError } from '@grpc/grpc-js';
import { after, before, describe, it } from 'mocha';
import { type CriServer, serveCri } from './server.ts';
import {
  type Asked,
  ask,
  CONTAINER,
  containerReport,
  ID,
  IMAGE_ID,
  reply,
  sandboxReport,
  silent,
  startGateway,
} from './testing/start-gateway.ts';
import { createFeed } from './view/feed.ts';

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
      case 'exec-sync': {
        const [word = ''] = (request as verbs.ExecSyncRequest).cmd;
        if (word === 'hang') throw new Failure('timeout', 'runtime.runc did not answer in time');
        if (word === 'wait') return new Promise(() => undefined);
        return reply({ socketPath: join(world.directory, 's'), secret: Buffer.alloc(16, word) });
      }
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
    assert.equal(output.stdout.length + output.stderr.length, 16 * 1024 * 1024 - 65 * 1024);
    await assert.rejects(
      ask(world.runtime, 'execSync', { containerId: CONTAINER, cmd: ['t'], timeout: 1n }),
      (error: ServiceError) => error.code === GRPC_CODE.DEADLINE_EXCEEDED,
    );
    assert.equal(secrets.length, 2);
    secrets = [];
  });

  it('tells a worker that does not answer from a command that took too long', async () => {
    const request = { containerId: CONTAINER, timeout: 1n };
    await assert.rejects(
      ask(world.runtime, 'execSync', { ...request, cmd: ['hang'] }),
      (error: ServiceError) =>
        error.code === GRPC_CODE.UNAVAILABLE && /did not answer in time/.test(error.details),
    );
    const deadline = Number(systemClock.nowNs() / 1_000_000n) + 150;
    await assert.rejects(
      ask(world.runtime, 'execSync', { ...request, cmd: ['wait'] }, { deadline }),
      (error: ServiceError) => error.code === GRPC_CODE.DEADLINE_EXCEEDED,
    );
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
      [() => ask(runtime, 'attach', { containerId: CONTAINER }), /^3 one of stdin/],
    ];
    for (const [work, expected] of cases) assert.match(await codeOf(work()), expected);
    const absent = await ask(images, 'imageStatus', {
      image: { image: 'absent', annotations: {} },
    });
    assert.equal(absent.image, undefined);
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

  it('refuses a socket that is passed with another path than the configured', async () => {
    const manager = createServer().listen(join(world.directory, 'passed.sock'));
    await new Promise((resolve) => manager.once('listening', resolve));
    const { _handle: passed } = manager as unknown as { readonly _handle: { readonly fd: number } };
    const { gateway, bus, metrics } = world;
    try {
      await assert.rejects(serveCri({ gateway, bus, log: silent, metrics }, passed.fd), {
        kind: 'invalid_argument',
        message: /gateway\.socket is .+, but the service manager passes .+passed\.sock: change /,
      });
    } finally {
      manager.close();
    }
  });
});
