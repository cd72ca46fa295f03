// Registry credentials are used and end there: no file of a stack, no key of its Redis and no answer
// to a caller holds any of them, at the most talkative level of the logs.

import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { buildImage, pushImage } from '@cribus/cli/tour/image.ts';
import { type Registry, startRegistry } from '@cribus/cli/tour/registry.ts';
import { GRPC_CODE } from '@cribus/contracts/failure.ts';
import {
  ContainerStatusRequest,
  ImageStatusRequest,
  PodSandboxStatusRequest,
  StatusRequest,
} from '@cribus/contracts/gen/cri/v1/api.ts';
import { Redis } from 'ioredis';
import { after, before, describe, it } from 'mocha';
import { hasCode } from './harness/cri.ts';
import { pullImage } from './harness/image-calls.ts';
import { busyboxLayer, writeHosts } from './harness/images.ts';
import { assertNothingLeaked, snapshotHost } from './harness/leaks.ts';
import { type RunningPod, runPod } from './harness/pods.ts';
import { type Stack, startStack } from './harness/stack.ts';

interface User {
  readonly name: string;
  readonly password: string;
}

const secret = (what: string) => `${what}-${randomBytes(12).toString('hex')}`;
const basicOf = ({ name, password }: User) => Buffer.from(`${name}:${password}`).toString('base64');

/** Shown by the caller of a pull. */
const caller: User = { name: 'caller', password: secret('callers-password') };
/** Shown by the header of hosts.toml. */
const configured: User = { name: 'configured', password: secret('configured-password') };
const wrong = secret('wrong-password');
const identityToken = secret('identity-token');
const registryToken = secret('registry-token');
const header = secret('header-value');

/** By what it is; also as it goes over the wire. */
const SECRETS: Readonly<Record<string, string>> = {
  "the caller's password": caller.password,
  "the caller's basic credentials": basicOf(caller),
  'the configured password': configured.password,
  'the configured basic credentials': basicOf(configured),
  'a wrong password': wrong,
  'the wrong basic credentials': basicOf({ ...caller, password: wrong }),
  'an identity token': identityToken,
  'a registry token': registryToken,
  'a header of hosts.toml': header,
};

/** The names of the secrets that a text holds. */
function secretsIn(text: Buffer): string[] {
  return Object.entries(SECRETS)
    .filter(([, value]) => text.includes(value))
    .map(([what]) => what);
}

/** An htpasswd line; docker-registry knows bcrypt alone, and crypt(3) makes it. */
function htpasswdLine({ name, password }: User): string {
  const salt = randomBytes(11).toString('hex');
  const program = 'print crypt($ARGV[0], q($2y$05$) . $ARGV[1])';
  return `${name}:${execFileSync('perl', ['-e', program, password, salt], { encoding: 'utf8' })}\n`;
}

describe('the secrets of registries', () => {
  let host = snapshotHost();
  let directory: string;
  let registry: Registry;
  let stack: Stack;
  let pod: RunningPod;
  const answers: unknown[] = [];

  before(async () => {
    host = snapshotHost();
    directory = await mkdtemp(join(tmpdir(), 'cribus-htpasswd-'));
    const htpasswd = join(directory, 'htpasswd');
    await writeFile(htpasswd, [caller, configured].map(htpasswdLine).join(''));
    registry = await startRegistry({ htpasswd });
    const config = { Cmd: ['/bin/sh'], Env: ['PATH=/bin'], WorkingDir: '/' };
    for (const [repository, mark] of [
      ['private/first', 'a'],
      ['private/second', 'b'],
    ] as const) {
      const layer = { kind: 'file', path: mark, mode: 0o644, data: Buffer.from(mark) } as const;
      await pushImage(buildImage({ layers: [busyboxLayer(), [layer]], config }), ['1'], {
        ...{ registry: registry.url, repository, authorization: `Basic ${basicOf(caller)}` },
        signal: AbortSignal.timeout(30_000),
      });
    }
    stack = await startStack({ config: '[log]\nlevel = "trace"\n' });
    await work();
  });

  after(async () => {
    await stack?.destroy();
    await registry?.stop();
    if (directory !== undefined) await rm(directory, { recursive: true });
    assertNothingLeaked(host);
  });

  /** Pulls in each way that shows a secret, right and wrong, and a pod of what was pulled. */
  async function work(): Promise<void> {
    const { cri } = stack;
    const first = `${registry.host}/private/first:1`;
    const second = `${registry.host}/private/second:1`;
    const refused = async (image: string, auth?: Parameters<typeof pullImage>[2]) => {
      await assert.rejects(pullImage(cri, image, auth), (error) => {
        answers.push(error instanceof Error ? error.message : error);
        assert.ok(
          hasCode(error, GRPC_CODE.UNAUTHENTICATED) || hasCode(error, GRPC_CODE.PERMISSION_DENIED),
          String(error),
        );
        return true;
      });
    };
    await refused(first);
    await refused(first, { auth: { username: caller.name, password: wrong } });
    await refused(first, { auth: { identityToken } });
    await refused(first, { auth: { registryToken } });
    const { name: username, password } = caller;
    await pullImage(cri, first, { auth: { username, password } });
    await refused(second, { auth: { username, password, serverAddress: 'elsewhere.example' } });
    await writeHosts(
      stack.root,
      registry.host,
      [
        `[host."${registry.url}"]`,
        '  capabilities = ["pull", "resolve"]',
        `  [host."${registry.url}".header]`,
        `    Authorization = "Basic ${basicOf(configured)}"`,
        `    X-Of-This-Node = "${header}"`,
        '',
      ].join('\n'),
    );
    await pullImage(cri, second);
    // The same again as one base64 text, which is how docker's own file has it.
    await pullImage(cri, first, { auth: { auth: basicOf(caller) } });
    pod = await runPod(stack, { image: second, script: 'echo up; sleep 1000' });
    const { podId: podSandboxId, containerId } = pod;
    answers.push(
      await cri.call('status', StatusRequest.fromPartial({ verbose: true })),
      await cri.call(
        'imageStatus',
        ImageStatusRequest.fromPartial({ image: { image: first }, verbose: true }),
      ),
      await cri.call(
        'podSandboxStatus',
        PodSandboxStatusRequest.fromPartial({ podSandboxId, verbose: true }),
      ),
      await cri.call(
        'containerStatus',
        ContainerStatusRequest.fromPartial({ containerId, verbose: true }),
      ),
    );
  }

  it('are in no file of the stack but the hosts.toml that a person wrote', async () => {
    const found: string[] = [];
    let files = 0;
    let bytes = 0;
    for (const path of await filesBelow(stack.root)) {
      const content = await readOrSkip(path);
      if (content === undefined) continue;
      files += 1;
      bytes += content.length;
      found.push(...secretsIn(content).map((what) => `${what} in ${path}`));
    }
    const hosts = join(stack.root, 'etc', 'certs.d', registry.host, 'hosts.toml');
    assert.deepEqual(found.sort(), [
      `a header of hosts.toml in ${hosts}`,
      `the configured basic credentials in ${hosts}`,
    ]);
    assert.ok(files > 50 && bytes > 1_000_000, `saw only ${files} files of ${bytes} bytes`);
  });

  it('are not in the logs, which do tell of the pulls', async () => {
    const log = await readFile(join(stack.root, 'log', 'image-service.log'), 'utf8');
    assert.match(log, /private\/first/);
    assert.match(log, /private\/second/);
    assert.match(log, /unauthenticated/);
  });

  it('are not in Redis, which does hold the images', async () => {
    const credentials = join(stack.root, 'state', 'credentials', 'operator.redis');
    const redis = new Redis({
      path: join(stack.root, 'run', 'redis.sock'),
      password: (await readFile(credentials, 'utf8')).trim(),
    });
    try {
      const keys = await redis.keys('*');
      const values = await Promise.all(keys.map((key) => contentOf(redis, key)));
      const all = Buffer.concat(values.flat());
      assert.deepEqual(secretsIn(all), []);
      assert.ok(all.includes('private/first'), `saw only ${keys.join(', ')}`);
    } finally {
      redis.disconnect();
    }
  });

  it('are in no answer to a caller', () => {
    const text = JSON.stringify(answers, (_key, value: unknown) =>
      typeof value === 'bigint' ? value.toString() : value,
    );
    assert.deepEqual(secretsIn(Buffer.from(text)), []);
    assert.ok(answers.length >= 9, `saw only ${answers.length} answers`);
  });

  it('are on no command line and in no environment of a part', async () => {
    const { parts } = await stack.status();
    assert.equal(parts.length, 7);
    for (const { pid, name } of parts) {
      for (const file of ['cmdline', 'environ']) {
        const text = await readFile(join('/proc', String(pid), file));
        assert.notEqual(text.length, 0);
        assert.deepEqual(secretsIn(text), [], `${file} of ${name}`);
      }
    }
  });
});

/** Regular files, through every directory but links. */
async function filesBelow(root: string): Promise<string[]> {
  const entries = await readdir(root, { withFileTypes: true, recursive: true });
  return entries
    .filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath, entry.name));
}

/** Undefined for what went away in the meantime, and for namespaces, which can't be read. */
async function readOrSkip(path: string): Promise<Buffer | undefined> {
  try {
    return await readFile(path);
  } catch (error) {
    const code = error instanceof Error && 'code' in error ? error.code : undefined;
    if (code === 'ENOENT' || code === 'EINVAL') return undefined;
    throw error;
  }
}

async function contentOf(redis: Redis, key: string): Promise<Buffer[]> {
  const name = Buffer.from(key);
  switch (await redis.type(key)) {
    case 'hash':
      return [
        name,
        ...Object.entries(await redis.hgetallBuffer(key)).flatMap(([field, value]) => [
          Buffer.from(field),
          value,
        ]),
      ];
    case 'string':
      return [name, (await redis.getBuffer(key)) ?? Buffer.alloc(0)];
    default:
      throw new Error(`${key} is a ${await redis.type(key)}, which this test does not read yet`);
  }
}
