import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { mkdir, mkdtemp, rm, stat, writeFile } from 'node:fs/promises';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseConfig } from '@cribus/chassis/config.ts';
import { describe, it } from 'mocha';
import { onRemovalSocket } from '../commands/down.ts';
import { provideCredentials, USERS } from './credentials.ts';
import { generatedPaths, writeConfigs } from './generated.ts';
import { permissionsOf } from './nats-config.ts';
import { openStack } from './open-stack.ts';
import { partEnvironment } from './parts.ts';
import { isPortFree, PORT_NAMES, type Ports, parsePorts, planPorts } from './ports.ts';
import { effectiveConfig, headedConfigText } from './services-config.ts';
import { backoffMs } from './supervisor.ts';

const question = {
  fixed: {},
  previous: undefined,
  ours: new Set<string>(),
  seed: 0,
  isFree: async () => true,
};

async function inTemporaryDirectory(work: (directory: string) => Promise<void>): Promise<void> {
  const directory = await mkdtemp(join(tmpdir(), 'cribus-cli-'));
  try {
    await work(directory);
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
}

describe('the ports of a stack', () => {
  it('differ from each other and lie below the ephemeral range', async () => {
    const { ports, moved } = await planPorts(question);
    const all = [ports.nats, ports.streaming, ...Object.values(ports.metrics)];
    assert.equal(new Set(all).size, PORT_NAMES.length);
    assert.ok(all.every((port) => port >= 20_000 && port < 32_000));
    assert.deepEqual(moved, []);
  });

  it('are kept, moved when somebody else has them, and kept when that is us', async () => {
    const { ports: previous } = await planPorts(question);
    const isFree = async (port: number) => port !== previous.nats;
    const moved = await planPorts({ ...question, previous, isFree });
    assert.deepEqual(moved.moved, ['nats']);
    assert.notEqual(moved.ports.nats, previous.nats);
    assert.deepEqual(moved.ports.metrics, previous.metrics);
    const kept = await planPorts({ ...question, previous, isFree, ours: new Set(['nats']) });
    assert.deepEqual(kept, { ports: previous, moved: [] });
  });

  it('are what the configuration says where it says so', async () => {
    const fixed = { 'cri-gateway': 9_100, streaming: 9_101 };
    const { ports } = await planPorts({
      ...question,
      fixed,
      isFree: async (port) => port > 20_000,
    });
    assert.deepEqual([ports.metrics['cri-gateway'], ports.streaming], [9_100, 9_101]);
  });

  it('are read back only when whole', async () => {
    const { ports } = await planPorts(question);
    assert.deepEqual(parsePorts(JSON.stringify(ports)), ports);
    for (const text of ['', '{}', 'null', JSON.stringify({ ...ports, metrics: {} } as Ports)]) {
      assert.equal(parsePorts(text), undefined, text);
    }
  });

  it('are seen as taken while somebody listens', async () => {
    const server = createServer();
    await new Promise<void>((done) => server.listen(0, '127.0.0.1', done));
    const address = server.address();
    assert.ok(typeof address === 'object' && address !== null);
    assert.equal(await isPortFree(address.port, '127.0.0.1'), false);
    await new Promise((done) => server.close(done));
    assert.equal(await isPortFree(address.port, '127.0.0.1'), true);
  });
});

describe('the permissions on the bus', () => {
  const plan = { node: 'n', handlers: { runc: 'runc', crun: 'runc', gvisor: 'gvisor' } as const };

  it('let a worker listen for its own handlers and those nobody knew', () => {
    const runc = permissionsOf('runtime-runc', plan);
    assert.ok(runc.subscribe.includes('cribus.n.runtime.*.*'));
    assert.deepEqual(runc.subscribeDeny, ['cribus.n.runtime.gvisor.>']);
    assert.deepEqual(permissionsOf('runtime-gvisor', plan).subscribeDeny, [
      'cribus.n.runtime.runc.>',
      'cribus.n.runtime.crun.>',
    ]);
  });

  it('give each service its own inbox, and nobody but the operator everything', () => {
    for (const user of USERS) {
      const { publish, subscribe } = permissionsOf(user, plan);
      if (user === 'operator') continue;
      assert.ok(subscribe.includes(`_INBOX_${user}.>`), user);
      const wide = [...publish, ...subscribe].filter((subject) =>
        /^(>|cribus\.n\.>)$/.test(subject),
      );
      assert.deepEqual(wide, [], user);
    }
  });

  it('let the gateway ask every owner and report nothing', () => {
    const { publish } = permissionsOf('cri-gateway', plan);
    assert.ok(publish.includes('cribus.n.image-service.*'));
    assert.ok(!publish.some((subject) => subject.includes('event')));
  });
});

describe('credentials', () => {
  it('are made once, for root alone', () =>
    inTemporaryDirectory(async (directory) => {
      const path = join(directory, 'credentials');
      const first = await provideCredentials(path);
      assert.deepEqual(await provideCredentials(path), first);
      assert.equal(new Set(Object.values(first.redisPasswords)).size, USERS.length);
      assert.match(first.publicKeys.operator, /^U[A-Z2-7]{55}$/);
      assert.equal((await stat(path)).mode & 0o777, 0o700);
      assert.equal((await stat(join(path, 'operator.nk'))).mode & 0o777, 0o600);
    }));
});

describe('a stack', () => {
  it('has every path below its root, and an effective configuration that reads back', () =>
    inTemporaryDirectory(async (directory) => {
      const root = join(directory, 'a b:c');
      const stack = await openStack({ root, config: undefined });
      const { ports } = await planPorts(question);
      const choices = {
        ports,
        natsUrl: undefined,
        redisUrl: undefined,
        fallbackCniDirectory: '/f',
      };
      const config = effectiveConfig(stack, choices);
      assert.equal(config.gateway.socket, `${root}/run/cribus.sock`);
      assert.equal(config.nats.url, `nats://127.0.0.1:${ports.nats}`);
      assert.equal(config.cgroups.root, `/cribus-${stack.tag}`);
      const text = headedConfigText(config, ['A test.']);
      assert.deepEqual(parseConfig(text, { file: 'x' }), config);
    }));

  it('listens where no kubelet looks while its pods are removed, and nowhere else', () =>
    inTemporaryDirectory(async (root) => {
      const stack = onRemovalSocket(await openStack({ root, config: undefined }));
      const { ports } = await planPorts(question);
      const config = effectiveConfig(stack, {
        ...{ ports, natsUrl: undefined, redisUrl: undefined, fallbackCniDirectory: '' },
      });
      assert.equal(config.gateway.socket, `${root}/run/down.sock`);
      assert.equal(config.gateway.streaming_port, ports.streaming);
    }));

  it('uses servers that are already there, under a node name of its own', () =>
    inTemporaryDirectory(async (root) => {
      const stack = await openStack({ root, config: undefined });
      const { ports } = await planPorts(question);
      const redisUrl = 'redis://:pw@h:1';
      const choices = { ports, natsUrl: 'nats://u:p@h:2', redisUrl, fallbackCniDirectory: '' };
      const config = effectiveConfig(stack, choices);
      assert.deepEqual(config.nats, { url: 'nats://u:p@h:2', credentials_dir: '' });
      assert.deepEqual(config.redis, { url: redisUrl, credentials_dir: '' });
      assert.match(config.node.name, new RegExp(`-${stack.tag}$`));
    }));

  it('writes what its own servers read, and nothing for servers that are given', () =>
    inTemporaryDirectory(async (root) => {
      const stack = await openStack({ root, config: undefined });
      const { ports } = await planPorts(question);
      const files = generatedPaths(stack);
      await mkdir(stack.paths.generatedDirectory, { recursive: true });
      const credentials = await provideCredentials(stack.paths.credentialsDirectory);
      const write = (own: { nats: boolean; redis: boolean }) =>
        writeConfigs({ stack, config: stack.config, ports, credentials, own });
      await write({ nats: true, redis: true });
      assert.ok([files.nats, files.redis, files.services].every((file) => existsSync(file)));
      await write({ nats: false, redis: true });
      assert.deepEqual([files.nats, files.redis, files.services].map(existsSync), [
        false,
        true,
        true,
      ]);
    }));

  it('refuses a root whose sockets Linux would not take, and a wrong --config', () =>
    inTemporaryDirectory(async (directory) => {
      const open = (root: string, config?: string) => () => openStack({ root, config });
      await assert.rejects(open(`/${'x'.repeat(100)}`), /bytes longer than the 107/);
      await openStack({ root: `/${'x'.repeat(89)}`, config: undefined });
      await assert.rejects(open('/a\nb'), /control characters/);
      await assert.rejects(open('/a,b'), /no path that contains , /);
      await assert.rejects(open('/r', join(directory, 'none')), /there is no such file/);
      const file = join(directory, 'c.toml');
      await writeFile(file, '[log]\nlevel = "loud"\n');
      await assert.rejects(open('/r', file), /log\.level.*loud/);
    }));
});

describe('a part', () => {
  it('is started at once, then ever later up to five seconds', () => {
    assert.deepEqual([0, 1, 2, 3, 9].map(backoffMs), [0, 100, 200, 400, 2_000]);
  });

  it('gets the variables that are meant for it and no other', () => {
    const env = partEnvironment({
      PATH: '/x',
      OTEL_SERVICE_NAME: 's',
      AWS_SECRET: 'no',
      HTTPS_PROXY: 'http://p:1',
      TZ: 'UTC',
    });
    assert.deepEqual(Object.keys(env).sort(), [
      'MALLOC_ARENA_MAX',
      'OTEL_SERVICE_NAME',
      'PATH',
      'TZ',
    ]);
    assert.match(env['PATH'] ?? '', /^\/x:.*\/usr\/sbin/);
  });
});
