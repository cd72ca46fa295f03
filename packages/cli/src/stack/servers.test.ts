// The generated configurations, tried on the real servers.

import assert from 'node:assert/strict';
import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { systemClock } from '@cribus/host/clock.ts';
import { type Child, spawn } from '@cribus/host/spawn.ts';
import { connect, nkeyAuthenticator } from '@nats-io/transport-node';
import { Redis } from 'ioredis';
import { after, before, describe, it } from 'mocha';
import { provideCredentials, type UserName } from './credentials.ts';
import { natsConfig } from './nats-config.ts';
import { isPortFree, planPorts } from './ports.ts';
import { probeNats, probeRedis } from './probes.ts';
import { redisConfig } from './redis-config.ts';

let directory = '';
let port = 0;
let passwords: Readonly<Record<UserName, string>>;
const children: Child[] = [];

async function start(command: string, args: readonly string[]): Promise<void> {
  children.push(spawn({ command, args, stdout: 'null', stderr: 'null' }));
}

async function eventually(check: () => Promise<boolean>): Promise<void> {
  for (let left = 100; left > 0; left -= 1) {
    if (await check()) return;
    await systemClock.sleep(50);
  }
  assert.fail('it did not happen within 5 s');
}

before(async () => {
  // A blank and a quote, as a root directory may have them.
  directory = join(await mkdtemp(join(tmpdir(), 'cribus-servers-')), 'a "b');
  await mkdir(directory);
  const credentials = await provideCredentials(join(directory, 'credentials'));
  passwords = credentials.redisPasswords;
  const isFree = (candidate: number) => isPortFree(candidate, '127.0.0.1');
  const plan = {
    fixed: {},
    previous: undefined,
    ours: new Set<string>(),
    seed: process.pid,
    isFree,
  };
  port = (await planPorts(plan)).ports.nats;
  const handlers = { runc: 'runc', gvisor: 'gvisor' } as const;
  const { publicKeys } = credentials;
  const nats = natsConfig({ node: 'n', port, handlers, publicKeys });
  const redis = redisConfig({ socket: join(directory, 'redis.sock'), directory, passwords });
  await writeFile(join(directory, 'nats.conf'), nats);
  await writeFile(join(directory, 'redis.conf'), redis);
  await start('nats-server', ['-c', join(directory, 'nats.conf')]);
  await start('redis-server', [join(directory, 'redis.conf')]);
});

after(async () => {
  for (const child of children) child.kill('SIGKILL');
  await Promise.all(children.map((child) => child.exited));
  await rm(join(directory, '..'), { recursive: true, force: true });
});

async function as(user: UserName) {
  const seed = await readFile(join(directory, 'credentials', `${user}.nk`), 'utf8');
  const authenticator = nkeyAuthenticator(new TextEncoder().encode(seed.trim()));
  const servers = `127.0.0.1:${port}`;
  return connect({ servers, authenticator, inboxPrefix: `_INBOX_${user}`, reconnect: false });
}

describe('nats-server with the generated configuration', () => {
  it('greets, and refuses whoever has no key', async () => {
    await eventually(async () => (await probeNats(`nats://127.0.0.1:${port}`)).serving);
    await assert.rejects(connect({ servers: `127.0.0.1:${port}`, reconnect: false }), /uthoriz/);
  });

  it('carries a request of the gateway to its owner and the answer back', async () => {
    const [gateway, owner] = await Promise.all([as('cri-gateway'), as('image-service')]);
    owner.subscribe('cribus.n.image-service.pull-image', {
      callback: (_error, message) => void message.respond('done'),
    });
    await owner.flush();
    const answer = await gateway.request('cribus.n.image-service.pull-image', '', {
      timeout: 2_000,
    });
    assert.equal(answer.string(), 'done');
    await Promise.all([gateway.close(), owner.close()]);
  });

  it("keeps a service from others' subjects", async () => {
    const [operator, owner] = await Promise.all([as('operator'), as('image-service')]);
    const heard: string[] = [];
    operator.subscribe('>', { callback: (_error, message) => void heard.push(message.subject) });
    await operator.flush();
    const refused: string[] = [];
    void (async () => {
      for await (const status of owner.status()) {
        if (status.type === 'error') refused.push(String(status.error.message));
      }
    })();
    owner.publish('cribus.n.sandbox-manager.stop-pod-sandbox');
    owner.subscribe('_INBOX_cri-gateway.>', { callback: () => undefined });
    owner.publish('cribus.n.event.image');
    await eventually(async () => heard.length > 0 && refused.length >= 2);
    assert.deepEqual(heard, ['cribus.n.event.image']);
    assert.ok(
      refused.every((sentence) => /permissions violation/i.test(sentence)),
      refused.join('\n'),
    );
    await Promise.all([operator.close(), owner.close()]);
  });
});

describe('redis-server with the generated configuration', () => {
  it('tells the operator its version, and nobody else', async () => {
    const url = `unix://${join(directory, 'redis.sock')}`;
    await eventually(async () => (await probeRedis(url, passwords.operator)).serving);
    assert.equal((await probeRedis(url, 'wrong')).serving, false);
  });

  it("lets a service use cribus' keys and nothing else", async () => {
    const username = 'runtime-runc';
    const path = join(directory, 'redis.sock');
    const redis = new Redis({ path, username, password: passwords[username] });
    try {
      const result = await redis.multi().hset('cribus:n:x', 'a', '1').hvals('cribus:n:x').exec();
      assert.deepEqual(result?.[1], [null, ['1']]);
      assert.match(await redis.info('server'), /run_id:/);
      await assert.rejects(redis.set('other', '1'), /NOPERM/);
      await assert.rejects(redis.flushall(), /NOPERM/);
      await assert.rejects(redis.config('GET', 'requirepass'), /NOPERM/);
    } finally {
      redis.disconnect();
    }
  });
});
