// The mirror against a real redis-server: coalesced, whole again after FLUSHALL and a restart.

import assert from 'node:assert/strict';
import { ContainerRecord, ObjectReport } from '@cribus/contracts/gen/node/v1/records.ts';
import { runtimeOwner } from '@cribus/contracts/subjects.ts';
import { systemClock } from '@cribus/host/clock.ts';
import { Redis } from 'ioredis';
import { after, afterEach, before, beforeEach, describe, it } from 'mocha';
import { createMirror, mirrorKeys } from './mirror.ts';
import { createTestLog } from './testing/fake-service.ts';
import { createRedisServer, type TestServer } from './testing/servers.ts';

const RUNC = runtimeOwner('runc');
const KEYS = mirrorKeys('node', RUNC);

function report(id: string, revision: bigint, deleted = false): ObjectReport {
  return ObjectReport.fromPartial({
    owner: RUNC,
    id,
    deleted,
    version: { epoch: 1n, revision },
    object: deleted
      ? undefined
      : { $case: 'container', value: ContainerRecord.fromPartial({ id, reason: 'ä' }) },
  });
}

describe('mirror', () => {
  let redis: TestServer;
  let mirror: Awaited<ReturnType<typeof createMirror>>;
  let direct: Redis;
  let objects: Map<string, ObjectReport>;

  before(async () => {
    redis = await createRedisServer();
    await redis.start();
  });
  after(() => redis.close());
  beforeEach(async () => {
    objects = new Map([
      ['a', report('a', 1n)],
      ['b', report('b', 2n)],
    ]);
    mirror = await createMirror({
      url: redis.url,
      credentialsDirectory: '',
      service: 'runtime-runc',
      node: 'node',
      instanceId: 'i1',
      clock: systemClock,
      log: createTestLog().log,
    });
    direct = new Redis({ path: redis.url.slice('unix://'.length) });
    direct.on('error', () => {});
    await direct.flushall();
    mirror.register(RUNC, () => [...objects.values()]);
  });
  afterEach(() => {
    mirror.close();
    direct.disconnect();
  });

  async function until(check: () => Promise<boolean>): Promise<void> {
    const limit = systemClock.timeout(8_000);
    while (!(await check())) await systemClock.sleep(20, limit);
  }
  const revisions = async () => {
    const read = await mirror.read(RUNC, systemClock.timeout(1_000));
    if (read?.complete !== true) return undefined;
    return read.objects
      .map((one) => `${one.id}${one.version?.revision}`)
      .sort()
      .join(' ');
  };

  it('holds the whole set once it says complete, then each change', async () => {
    await until(async () => (await revisions()) === 'a1 b2');
    objects.set('a', report('a', 3n));
    mirror.report(report('a', 3n));
    objects.delete('b');
    mirror.report(report('b', 4n, true));
    await until(async () => (await revisions()) === 'a3');
    const read = await mirror.read(RUNC, systemClock.timeout(1_000));
    const [one] = read?.objects ?? [];
    assert(one?.object?.$case === 'container');
    assert.equal(one.object.value.reason, 'ä');
    assert.equal(await direct.hlen(KEYS.objects), 1);
  });

  it('writes everything again after FLUSHALL', async () => {
    await until(async () => (await revisions()) === 'a1 b2');
    await direct.flushall();
    assert.equal(await revisions(), undefined);
    await until(async () => (await revisions()) === 'a1 b2');
  });

  it('writes everything again after Redis was killed, and blocks nobody meanwhile', async () => {
    await until(async () => (await revisions()) === 'a1 b2');
    await redis.kill();
    await until(async () => !mirror.connected());
    const startedMs = systemClock.monotonicMs();
    for (let i = 0; i < 10_000; i += 1) mirror.report(report('c', 9n));
    assert.ok(systemClock.monotonicMs() - startedMs < 500);
    assert.equal(await mirror.read(RUNC, systemClock.timeout(200)), undefined);
    objects.set('c', report('c', 9n));
    await redis.start();
    await until(async () => (await revisions()) === 'a1 b2 c9');
  });

  it('answers nothing for an owner that never wrote its whole set', async () => {
    const other = runtimeOwner('crun');
    await until(async () => mirror.connected());
    const read = await mirror.read(other, systemClock.timeout(1_000));
    assert.deepEqual(read, { complete: false, objects: [] });
  });
});
