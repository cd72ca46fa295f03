import assert from 'node:assert/strict';
import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Bus } from '@cribus/chassis/bus.ts';
import { createMetrics } from '@cribus/chassis/metrics.ts';
import { Failure, GRPC_CODE } from '@cribus/contracts/failure.ts';
import { systemClock } from '@cribus/host/clock.ts';
import {
  type CallOptions,
  Client,
  type ClientReadableStream,
  credentials,
  type MethodDefinition,
  Server,
  ServerCredentials,
  type ServiceError,
} from '@grpc/grpc-js';
import { afterEach, beforeEach, describe, it } from 'mocha';
import type { Gateway, StreamVerb } from './gateway.ts';
import { wrapStream } from './stream-call.ts';
import { silent } from './testing/start-gateway.ts';

const asIs = (bytes: Buffer): Buffer => bytes;
const METHOD: MethodDefinition<Buffer, Buffer> = {
  path: '/test/Stream',
  requestStream: false,
  responseStream: true,
  requestSerialize: asIs,
  requestDeserialize: asIs,
  responseSerialize: asIs,
  responseDeserialize: asIs,
};

describe('the wrapper of streamed answers', () => {
  let directory: string;
  let server: Server;
  let client: Client;
  let leaving: AbortController;
  let metrics: ReturnType<typeof createMetrics>;

  beforeEach(async () => {
    directory = await mkdtemp(join(tmpdir(), 'cribus-stream-'));
    leaving = new AbortController();
    metrics = createMetrics('cri-gateway');
  });

  afterEach(async () => {
    client.close();
    server.forceShutdown();
    await rm(directory, { recursive: true });
  });

  /** Serves the verb and calls it. */
  async function call(
    stream: StreamVerb<Buffer, Buffer>,
    options: CallOptions & { endless?: boolean } = {},
  ): Promise<ClientReadableStream<Buffer>> {
    const gateway = {
      clock: systemClock,
      view: { container: () => undefined, sandbox: () => undefined },
    } as unknown as Gateway;
    server = new Server();
    server.addService(
      { stream: METHOD },
      {
        stream: wrapStream('Stream', {
          gateway,
          bus: {} as Bus,
          log: silent,
          metrics,
          stopping: new AbortController().signal,
          leaving: leaving.signal,
          stream,
          endless: options.endless ?? false,
        }),
      },
    );
    const address = `unix:${directory}/s`;
    await new Promise<void>((resolve, reject) => {
      server.bindAsync(address, ServerCredentials.createInsecure(), (error) =>
        error === null ? resolve() : reject(error),
      );
    });
    client = new Client(address, credentials.createInsecure());
    return client.makeServerStreamRequest(METHOD.path, asIs, asIs, Buffer.alloc(0), options);
  }

  async function ended(stream: ClientReadableStream<Buffer>): Promise<ServiceError> {
    stream.resume();
    const [error] = (await once(stream, 'error')) as [ServiceError];
    return error;
  }

  it('makes no more than the caller takes, and stops making when the caller hangs up', async () => {
    let made = 0;
    let stopped = (): void => undefined;
    const over = new Promise<void>((resolve) => {
      stopped = resolve;
    });
    const stream = await call(async function* () {
      try {
        for (; made < 1_000; made += 1) yield Buffer.alloc(256 * 1024);
      } finally {
        stopped();
      }
    });
    stream.on('error', () => undefined);
    stream.once('data', () => stream.pause());
    await once(stream, 'pause');
    // What a client reads ahead, a window, and what the sockets hold; not the 250 MiB that there are.
    for (let turn = 0; turn < 50; turn += 1) await systemClock.sleep(2);
    assert.ok(made > 0 && made < 60, `${made} messages were made for a caller that reads none`);
    stream.cancel();
    await over;
    // It is counted once the verb has cleaned up.
    await systemClock.sleep(10);
    const counted = (await metrics.registry.metrics())
      .split('\n')
      .filter((line) => line.startsWith('cribus_cri_requests_total'));
    assert.match(counted.join(), /code="CANCELLED".* 1$/);
  });

  it('ends with the status of a failure after the messages before it', async () => {
    const stream = await call(async function* () {
      yield Buffer.from('one');
      throw new Failure('limit', 'too slow');
    });
    const messages: string[] = [];
    stream.on('data', (message: Buffer) => messages.push(String(message)));
    const error = await ended(stream);
    assert.equal(error.code, GRPC_CODE.RESOURCE_EXHAUSTED);
    assert.match(error.details, /^too slow \(request /);
    assert.deepEqual(messages, ['one']);
  });

  it("ends at the caller's deadline", async () => {
    let reason: unknown;
    const stream = await call(
      async function* (_request, { signal }) {
        yield Buffer.from('one');
        await once(signal, 'abort');
        reason = signal.reason;
        throw signal.reason;
      },
      { deadline: new Date(Number(systemClock.nowNs() / 1_000_000n) + 100) },
    );
    assert.equal((await ended(stream)).code, GRPC_CODE.DEADLINE_EXCEEDED);
    for (let turn = 0; turn < 100 && reason === undefined; turn += 1) await systemClock.sleep(5);
    assert.ok(reason instanceof Failure && reason.kind === 'timeout');
  });

  it('ends an endless stream when the service is told to end', async () => {
    const stream = await call(
      async function* (_request, { signal }) {
        await once(signal, 'abort');
        yield* [];
        throw signal.reason;
      },
      { endless: true },
    );
    await once(stream, 'metadata');
    leaving.abort(new Failure('unavailable', 'the gateway is ending; ask again'));
    const error = await ended(stream);
    assert.equal(error.code, GRPC_CODE.UNAVAILABLE);
  });

  it('tells a bug by its incident only', async () => {
    const stream = await call(async function* () {
      yield* [];
      throw new TypeError('secret');
    });
    const error = await ended(stream);
    assert.equal(error.code, GRPC_CODE.INTERNAL);
    assert.doesNotMatch(error.details, /secret/);
  });
});
