import assert from 'node:assert/strict';
import { GRPC_CODE } from '@cribus/contracts/failure.ts';
import { ContainerPhase, SandboxPhase } from '@cribus/contracts/gen/node/v1/records.ts';
import { systemClock } from '@cribus/host/clock.ts';
import type { ServiceError } from '@grpc/grpc-js';
import { after, before, describe, it } from 'mocha';
import {
  ask,
  CONTAINER,
  containerReport,
  ID,
  sandboxReport,
  startGateway,
} from '../testing/start-gateway.ts';

const NOT_THERE = 'ef'.repeat(32);
const STREAMS = { stdin: false, stdout: true, stderr: false, tty: false };

describe('asking for streams', () => {
  let world: Awaited<ReturnType<typeof startGateway>>;
  before(async () => {
    world = await startGateway();
    while (world.gateway.feed.missing().length > 0) await systemClock.sleep(5);
    world.gateway.view.apply(sandboxReport());
    world.gateway.view.apply(containerReport(ContainerPhase.RUNNING, 1n));
  });
  after(() => world.close());

  const fails = async (
    method: 'exec' | 'attach' | 'portForward',
    request: object,
    code: number,
  ): Promise<void> => {
    const error = await ask(world.runtime, method, request).then(
      () => undefined,
      (reason: ServiceError) => reason,
    );
    assert.equal(error?.code, code, `${method} ${JSON.stringify(request)}: ${error?.message}`);
  };

  it('answers a URL for what can be had', async () => {
    const { runtime } = world;
    const exec = { containerId: CONTAINER, cmd: ['a'], ...STREAMS };
    assert.match((await ask(runtime, 'exec', exec)).url, /exec/);
    assert.match((await ask(runtime, 'attach', { containerId: CONTAINER, ...STREAMS })).url, /att/);
    assert.match((await ask(runtime, 'portForward', { podSandboxId: ID, port: [80] })).url, /port/);
    assert.match((await ask(runtime, 'portForward', { podSandboxId: ID })).url, /port/);
  });

  it('refuses what is no request before it looks for anything', async () => {
    const { INVALID_ARGUMENT } = GRPC_CODE;
    const request = { containerId: NOT_THERE, cmd: ['a'], ...STREAMS };
    await fails('exec', { ...request, cmd: [] }, INVALID_ARGUMENT);
    await fails('exec', { ...request, containerId: '' }, INVALID_ARGUMENT);
    await fails('portForward', { podSandboxId: '' }, INVALID_ARGUMENT);
    for (const method of ['exec', 'attach'] as const) {
      await fails(method, { ...request, tty: true, stderr: true }, INVALID_ARGUMENT);
      await fails(method, { ...request, stdout: false }, INVALID_ARGUMENT);
    }
    for (const port of [0, -1, 65_536]) {
      await fails('portForward', { podSandboxId: NOT_THERE, port: [port] }, INVALID_ARGUMENT);
    }
  });

  it('knows absent containers and sandboxes from those that do not run', async () => {
    const { NOT_FOUND, FAILED_PRECONDITION } = GRPC_CODE;
    await fails('exec', { containerId: NOT_THERE, cmd: ['a'], ...STREAMS }, NOT_FOUND);
    await fails('attach', { containerId: NOT_THERE, ...STREAMS }, NOT_FOUND);
    await fails('portForward', { podSandboxId: NOT_THERE, port: [80] }, NOT_FOUND);
    world.gateway.view.apply(containerReport(ContainerPhase.EXITED, 2n));
    await fails('exec', { containerId: CONTAINER, cmd: ['a'], ...STREAMS }, FAILED_PRECONDITION);
    await fails('attach', { containerId: CONTAINER, ...STREAMS }, FAILED_PRECONDITION);
    const stopped = sandboxReport();
    if (stopped.object?.$case === 'sandbox') stopped.object.value.phase = SandboxPhase.NOTREADY;
    world.gateway.view.apply({ ...stopped, version: { epoch: 1n, revision: 2n } });
    await fails('portForward', { podSandboxId: ID, port: [80] }, FAILED_PRECONDITION);
  });
});
