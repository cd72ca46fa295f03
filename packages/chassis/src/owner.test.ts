// Asking and answering over a real nats-server: failures, operations, restarts, discovery.

import assert from 'node:assert/strict';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Failure, isFailure } from '@cribus/contracts/failure.ts';
import {
  ContainerPhase,
  ContainerRecord,
  type OwnerStatus,
} from '@cribus/contracts/gen/node/v1/records.ts';
import {
  CreateContainerRequest,
  CreateContainerResponse,
  DescribeResponse,
} from '@cribus/contracts/gen/node/v1/verbs.ts';
import { runtimeOwner } from '@cribus/contracts/subjects.ts';
import { systemClock } from '@cribus/host/clock.ts';
import { listDirectory } from '@cribus/host/files.ts';
import { after, afterEach, before, beforeEach, describe, it } from 'mocha';
import { createOwner, openEpoch, type VerbTable } from './owner.ts';
import { createRecordStore, type RecordStore } from './records.ts';
import { createTestService, type TestService } from './testing/fake-service.ts';
import { createNatsServer, type TestServer } from './testing/servers.ts';

const RUNC = runtimeOwner('runc');
const soon = () => systemClock.timeout(10_000);

describe('owner', () => {
  let nats: TestServer;
  let asker: TestService;
  let directory: string;
  const open: TestService[] = [];

  before(async () => {
    nats = await createNatsServer();
    await nats.start();
  });
  after(() => nats.close());
  beforeEach(async () => {
    directory = await mkdtemp(join(tmpdir(), 'chassis-owner-'));
    asker = await createTestService({ natsUrl: nats.url, name: 'cri-gateway' });
    open.push(asker);
  });
  afterEach(async () => {
    for (const one of open.splice(0)) await one.stop();
    await rm(directory, { recursive: true, force: true });
  });

  async function worker(verbs: Partial<VerbTable<'runtime'>>): Promise<{
    service: TestService;
    store: RecordStore<ContainerRecord>;
    acknowledged: string[];
  }> {
    const service = await createTestService({ natsUrl: nats.url });
    open.push(service);
    const epoch = await openEpoch(directory);
    const store = createRecordStore<ContainerRecord>({
      service,
      owner: RUNC,
      epoch,
      kind: 'container',
      codec: ContainerRecord,
      format: 1,
      fileOf: (id) => join(directory, 'containers', id, 'record.pb'),
      listIds: () => listDirectory(join(directory, 'containers')),
    });
    await store.load();
    const acknowledged: string[] = [];
    const owner = createOwner({
      service,
      kind: 'runtime',
      name: RUNC,
      directory,
      epoch,
      // Only the verbs that a test asks are there; the others aren't subscribed.
      verbs: verbs as VerbTable<'runtime'>,
      stores: [store],
      describe: () => ({ warnings: ['only a test'] }),
      onAcknowledged: (operationId) => void acknowledged.push(operationId),
    });
    await owner.serve();
    return { service, store, acknowledged };
  }

  function create(sandboxId: string, operationId: string) {
    return asker.bus.ask(
      'create-container',
      CreateContainerRequest.fromPartial({ podSandboxId: sandboxId }),
      { owner: RUNC, signal: soon(), requestId: 'r1', operationId },
    );
  }
  const idOf = (containerId: string) => CreateContainerResponse.fromPartial({ containerId });

  it('answers with the result and every object that changed, each once', async () => {
    const { store, service, acknowledged } = await worker({
      'create-container': async (request, context) => {
        assert.equal(context.requestId, 'r1');
        assert.match(context.requestHash, /^[0-9a-f]{64}$/);
        const record = ContainerRecord.fromPartial({
          id: 'c1',
          sandboxId: request.podSandboxId,
          config: { metadata: { name: 'web' } },
        });
        const first = await store.put(record, { changed: context.changed });
        await store.put({ ...first, phase: ContainerPhase.CREATED }, { changed: context.changed });
        return idOf('c1');
      },
    });
    const { result, changed } = await create('s1', 'op1');
    assert.equal(result.containerId, 'c1');
    assert.deepEqual(
      changed.map((report) => [report.id, report.version?.revision, report.sequence]),
      [['c1', 2n, 2n]],
    );
    await systemClock.sleep(50);
    assert.deepEqual(acknowledged, ['op1']);
    const line = service.lines.find((one) => one['message'] === 'done');
    assert.equal(line?.['request_id'], 'r1');
    assert.equal(line?.['container'], 'web');
    assert.equal(line?.['sandbox'], 's1');
  });

  it('passes a failure on with its kind, and gives a bug an incident id', async () => {
    const { service } = await worker({
      'create-container': async () => {
        throw new Failure('already_exists', 'container "web"\nis c1', { stage: 'reserve' });
      },
      describe: async () => {
        throw new TypeError('x is not a function');
      },
    });
    await assert.rejects(create('s1', 'op1'), (error) => {
      assert(isFailure(error, 'already_exists'));
      assert.equal(error.message, 'reserve: container "web"\nis c1');
      return true;
    });
    const question = { owner: RUNC, signal: soon(), requestId: 'r' };
    const bug = await asker.bus.ask('describe', { id: 'c' }, question).catch((error) => error);
    assert(isFailure(bug, 'bug'));
    const incident = /^internal error, incident ([0-9a-f-]{36})$/.exec(bug.message)?.[1];
    const line = service.lines.find((one) => one['incident'] === incident);
    assert.match(JSON.stringify(line), /x is not a function.*owner\.test\.ts/);
    const metrics = await service.metrics.registry.metrics();
    assert.match(metrics, /cribus_verb_requests_total\{[^}]*kind="bug"[^}]*\} 1/);
    assert.match(metrics, /cribus_bugs_total\{[^}]*\} 1/);
  });

  it('turns an answer that is too large for the bus into a failure, and carries 16 MiB', async () => {
    let bytes = 16 * 1024 * 1024;
    await worker({
      describe: async () => DescribeResponse.fromPartial({ info: { text: 'x'.repeat(bytes) } }),
    });
    const question = () => ({ owner: RUNC, signal: soon(), requestId: 'r' });
    const { result } = await asker.bus.ask('describe', { id: 'c' }, question());
    assert.equal(result.info['text']?.length, bytes);
    bytes = 21 * 1024 * 1024;
    await assert.rejects(asker.bus.ask('describe', { id: 'c' }, question()), (error) =>
      isFailure(error, 'limit'),
    );
    await assert.rejects(
      asker.bus.ask('describe', { id: 'y'.repeat(bytes) }, question()),
      (error) => isFailure(error, 'limit'),
    );
  });

  it('joins a running operation by its id, and refuses the id for another request', async () => {
    let effects = 0;
    await worker({
      'create-container': async () => {
        effects += 1;
        await systemClock.sleep(300);
        return idOf(`c${effects}`);
      },
    });
    const [first, second] = await Promise.all([create('s1', 'op1'), create('s1', 'op1')]);
    assert.equal(first.result.containerId, 'c1');
    assert.equal(second.result.containerId, 'c1');
    assert.equal(effects, 1);
    const running = create('s1', 'op2');
    await assert.rejects(create('other', 'op2'), (error) => isFailure(error, 'conflict'));
    await running;
  });

  it('detaches when the asker goes away: the operation goes on', async () => {
    const begun = gate();
    const goOn = gate();
    const ended = gate();
    await worker({
      'create-container': async () => {
        begun.resolve();
        await goOn.promise;
        ended.resolve();
        return idOf('c1');
      },
    });
    const leaving = new AbortController();
    const options = { owner: RUNC, requestId: 'r', signal: leaving.signal };
    const request = CreateContainerRequest.fromPartial({});
    const asked = asker.bus.ask('create-container', request, options);
    await begun.promise;
    leaving.abort(new DOMException('late', 'TimeoutError'));
    await assert.rejects(asked, (error) => isFailure(error, 'timeout'));
    const gone = AbortSignal.abort();
    await assert.rejects(
      asker.bus.ask('create-container', request, { ...options, signal: gone }),
      (error) => isFailure(error, 'cancelled'),
    );
    goOn.resolve();
    await ended.promise;
  });

  it('has one effect and one answer when nats-server is killed in between', async () => {
    let effects = 0;
    await worker({
      'create-container': async () => {
        effects += 1;
        await systemClock.sleep(500);
        return idOf('c1');
      },
    });
    const asking = create('s1', 'op1');
    await systemClock.sleep(100);
    await nats.kill();
    // The answer is due while the server is down: it must not be lost.
    await systemClock.sleep(700);
    await nats.start();
    const startedMs = systemClock.monotonicMs();
    assert.equal((await asking).result.containerId, 'c1');
    assert.ok(systemClock.monotonicMs() - startedMs < 2_500);
    assert.equal(effects, 1);
  });

  it('says unavailable after the grace when nobody responds', async () => {
    const startedMs = systemClock.monotonicMs();
    await assert.rejects(create('s1', 'op1'), (error) => {
      assert(isFailure(error, 'unavailable'));
      assert.equal(error.message, 'runtime.runc does not answer: is its worker running?');
      return true;
    });
    const tookMs = systemClock.monotonicMs() - startedMs;
    assert.ok(tookMs > 4_900 && tookMs < 6_500, `${tookMs} ms`);
  });

  it('waits within the grace for an owner that is starting', async () => {
    const asking = create('s1', 'op1');
    await systemClock.sleep(500);
    await worker({ 'create-container': async () => idOf('c1') });
    assert.equal((await asking).result.containerId, 'c1');
  });

  /** Resolves once exactly these operations are kept on disk. */
  async function stored(operations: readonly string[]): Promise<void> {
    const limit = soon();
    const kept = () => listDirectory(join(directory, 'operations'));
    while (String(await kept()) !== String(operations)) await systemClock.sleep(10, limit);
  }

  it('answers again from disk after the owner was restarted, until acknowledged', async () => {
    let effects = 0;
    const verbs: Partial<VerbTable<'runtime'>> = {
      'create-container': async () => {
        effects += 1;
        return idOf(`c${effects}`);
      },
    };
    const { service } = await worker(verbs);
    const request = Buffer.from(
      CreateContainerRequest.encode(CreateContainerRequest.fromPartial({})).finish(),
    );
    assert.equal(request.length, 0);
    // Its subscriptions have reached the server by the time it answers anything.
    await asker.bus.ask(
      'inventory',
      { pageToken: '' },
      { owner: RUNC, requestId: 'r', signal: soon() },
    );
    // An asker that vanishes before its answer: nothing acknowledges.
    const vanishing = new AbortController();
    const options = { owner: RUNC, requestId: 'r', operationId: 'op1' };
    const empty = CreateContainerRequest.fromPartial({});
    const lost = asker.bus.ask('create-container', empty, { ...options, signal: vanishing.signal });
    vanishing.abort();
    await assert.rejects(lost);
    await stored(['op1']);
    await service.stop();
    await worker(verbs);
    const again = await asker.bus.ask('create-container', empty, { ...options, signal: soon() });
    assert.equal(again.result.containerId, 'c1');
    assert.equal(effects, 1);
    await stored([]);
  });

  it('tells a subscriber of changes in order, of heartbeats, and of a gap', async () => {
    const { store } = await worker({});
    const seen: string[] = [];
    const gaps: string[] = [];
    let status: OwnerStatus | undefined;
    const listening = new AbortController();
    asker.bus.subscribe({
      onReport: (report) => void seen.push(`${report.id}${report.deleted ? '-' : '+'}`),
      onOwner: (said) => {
        status = said;
      },
      onGap: (owner) => void gaps.push(owner),
      signal: listening.signal,
    });
    await store.put(ContainerRecord.fromPartial({ id: 'a' }));
    await store.put(ContainerRecord.fromPartial({ id: 'b' }));
    await store.remove('a');
    await systemClock.sleep(1_300);
    assert.deepEqual(seen, ['a+', 'b+', 'a-']);
    assert.equal(status?.sequence, 3n);
    assert.deepEqual(status?.warnings, ['only a test']);
    assert.deepEqual(gaps, []);
    await nats.kill();
    await systemClock.sleep(100);
    await store.put(ContainerRecord.fromPartial({ id: 'c' }));
    await nats.start();
    await systemClock.sleep(1_800);
    assert.deepEqual(gaps, [RUNC]);
    listening.abort();
  });

  it('cuts the inventory into pages', async () => {
    const { store } = await worker({});
    for (let i = 0; i < 300; i += 1) {
      await store.put(ContainerRecord.fromPartial({ id: `c${String(i).padStart(3, '0')}` }));
    }
    const pages: string[][] = [];
    let pageToken = '';
    do {
      const { result } = await asker.bus.ask(
        'inventory',
        { pageToken },
        { owner: RUNC, signal: soon(), requestId: 'r' },
      );
      pages.push(result.objects.map((object) => object.id));
      assert.equal(result.status?.sequence, 300n);
      pageToken = result.nextPageToken;
    } while (pageToken !== '');
    assert.deepEqual(
      pages.map((page) => page.length),
      [256, 44],
    );
    assert.equal(new Set(pages.flat()).size, 300);
  });

  it('answers discovery in the micro-service format', async () => {
    await worker({ 'create-container': async () => idOf('c1') });
    await create('s1', 'op1');
    const answers: Record<string, unknown>[] = [];
    const { connect } = await import('@nats-io/transport-node');
    const connection = await connect({ servers: nats.url });
    for (const verb of ['PING', 'INFO', 'STATS']) {
      const message = await connection.request(`$SRV.${verb}.runtime-runc`, '', { timeout: 2_000 });
      answers.push(message.json());
    }
    await connection.close();
    const [ping, info, stats] = answers;
    assert.equal(ping?.['type'], 'io.nats.micro.v1.ping_response');
    const metadata = ping?.['metadata'] as Record<string, string> | undefined;
    assert.equal(metadata?.['handler'], 'runc');
    assert.equal(info?.['version'], '1.2.3');
    const endpoints = stats?.['endpoints'] as Record<string, unknown>[];
    const endpoint = endpoints.find((one) => one['name'] === 'create-container');
    assert.equal(endpoint?.['subject'], 'cribus.node.runtime.runc.create-container');
    assert.equal(endpoint?.['num_requests'], 1);
    assert.ok((endpoint?.['processing_time'] as number) > 0);
  });
});

/** A promise that the test resolves. */
function gate(): { readonly promise: Promise<void>; readonly resolve: () => void } {
  let resolve = (): void => undefined;
  const promise = new Promise<void>((open) => {
    resolve = open;
  });
  return { promise, resolve };
}
