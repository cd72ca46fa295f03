// Without `cribus up`: each service as a process of its own with its own configuration, as production
// starts it; and stacks that use a NATS and a Redis that are already there.

import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { freePort } from '@cribus/cli/tour/registry.ts';
import {
  ExecSyncRequest,
  NamespaceMode,
  RunPodSandboxRequest,
  StatusRequest,
} from '@cribus/contracts/gen/cri/v1/api.ts';
import { after, afterEach, before, describe, it } from 'mocha';
import { type Cri, connectCri } from './harness/cri.ts';
import { startTestRegistry, type TestRegistry } from './harness/images.ts';
import { assertNothingLeaked, type HostSnapshot, snapshotHost } from './harness/leaks.ts';
import { pull, runPod } from './harness/pods.ts';
import {
  CRIBUS,
  eventually,
  PROJECT_ROOT,
  runCommand,
  type Stack,
  startStack,
} from './harness/stack.ts';

const SERVICES = [
  'image-service',
  'sandbox-manager',
  'runtime-runc',
  'runtime-gvisor',
  'cri-gateway',
];
const NODE = join(PROJECT_ROOT, 'node_modules', `node-linux-${process.arch}`, 'bin', 'node');

interface Servers {
  readonly natsUrl: string;
  readonly redisUrl: string;
  readonly stop: () => Promise<void>;
}

/** nats-server and redis-server as an operator has them, with a password each or with none. */
async function startServers(directory: string, password: string): Promise<Servers> {
  const [natsPort, redisPort] = [await freePort(), await freePort()];
  const natsAuth = password === '' ? [] : ['--user', 'cribus', '--pass', password];
  const redisAuth = password === '' ? [] : ['--requirepass', password];
  const bind = ['--bind', '127.0.0.1', '--save', '', '--dir', directory];
  const children = [
    start('nats-server', ['-a', '127.0.0.1', '-p', String(natsPort), ...natsAuth]),
    start('redis-server', ['--port', String(redisPort), ...bind, ...redisAuth]),
  ];
  const [nats, redis] = password === '' ? ['', ''] : [`cribus:${password}@`, `:${password}@`];
  return {
    natsUrl: `nats://${nats}127.0.0.1:${natsPort}`,
    redisUrl: `redis://${redis}127.0.0.1:${redisPort}`,
    stop: async () => {
      await Promise.all(children.map(stopped));
    },
  };
}

function start(command: string, args: readonly string[]): ChildProcess {
  return spawn(command, args, { stdio: ['ignore', 'ignore', 'ignore'] });
}

/** SIGTERM, and the exit code. */
function stopped(child: ChildProcess): Promise<number | null> {
  if (child.exitCode !== null) return Promise.resolve(child.exitCode);
  return new Promise((resolve) => {
    child.once('exit', (code) => resolve(code));
    child.kill('SIGTERM');
  });
}

describe('each service, started on its own', () => {
  let host: HostSnapshot;
  let base: string;
  let root: string;
  let servers: Servers;
  let registry: TestRegistry;
  let cri: Cri;
  const running = new Map<string, ChildProcess>();

  before(async () => {
    host = snapshotHost();
    base = mkdtempSync(join(tmpdir(), 'cribus-e2e-'));
    root = join(base, 'node');
    mkdirSync(join(root, 'etc'), { recursive: true });
    registry = await startTestRegistry();
    servers = await startServers(base, 'pass-3141');
    for (const name of SERVICES) {
      const port = await freePort();
      // Each has a file of its own, as each has a unit of its own in production.
      writeFileSync(
        join(root, 'etc', `${name}.toml`),
        `[paths]
run = "${root}/run"
state = "${root}/state"
etc = "${root}/etc"
log = "${root}/log"
[nats]
url = "${servers.natsUrl}"
[redis]
url = "${servers.redisUrl}"
[cni]
conf_dir = "${root}/etc/cni/net.d"
[cgroups]
root = "/cribus-alone-${process.pid}"
[metrics]
ports = { ${name} = ${port} }
`,
      );
    }
    cri = connectCri(`unix://${root}/run/cribus.sock`);
  });

  after(async () => {
    cri.close();
    for (const child of running.values()) await stopped(child);
    // What the services would do at the next start is left to the command that owns a root.
    const down = await runCommand(CRIBUS, [
      'down',
      '--pods',
      '--root',
      root,
      '--config',
      join(root, 'etc', 'cri-gateway.toml'),
    ]);
    await servers.stop();
    await registry.stop();
    rmSync(base, { recursive: true, force: true });
    assert.equal(down.code, 0, down.stdout + down.stderr);
    assertNothingLeaked(host);
  });

  it('serves with nothing but --config FILE, in any order', async () => {
    for (const name of [...SERVICES].reverse()) running.set(name, startService(name));
    await eventually('RuntimeReady', async () => (await condition('RuntimeReady')).status, 20_000);
  });

  it('provides no network: NetworkReady is false and names the directory', async () => {
    const { status, message } = await condition('NetworkReady');
    assert.equal(status, false);
    assert.ok(message.includes(`${root}/etc/cni/net.d`), message);
    const metadata = { name: 'n', uid: 'n', namespace: 'default', attempt: 0 };
    const request = RunPodSandboxRequest.fromPartial({ config: { metadata, linux: {} } });
    await assert.rejects(cri.call('runPodSandbox', request), /etc\/cni\/net\.d/);
  });

  it('drains at SIGTERM: the call in flight is answered, and the exit code is 0', async () => {
    const stack = { root, cri } as Stack;
    await pull(cri, registry.busybox);
    const namespaceOptions = { pid: NamespaceMode.CONTAINER, network: NamespaceMode.NODE };
    const pod = await runPod(stack, {
      image: registry.busybox,
      script: 'while :; do sleep 0.1; done',
      pod: { name: 'host', linux: { securityContext: { namespaceOptions } } },
    });
    const cmd = ['/bin/sh', '-c', 'sleep 1; echo done'];
    const request = { containerId: pod.containerId, cmd, timeout: 10n };
    const inFlight = cri.call('execSync', ExecSyncRequest.fromPartial(request));
    await new Promise((resolve) => setTimeout(resolve, 300));
    const gateway = running.get('cri-gateway');
    assert.ok(gateway !== undefined);
    const code = stopped(gateway);
    assert.equal(Buffer.from((await inFlight).stdout).toString(), 'done\n');
    assert.equal(await code, 0);
    for (const name of SERVICES.slice(0, 4)) {
      const child = running.get(name);
      assert.equal(child === undefined ? undefined : await stopped(child), 0, name);
    }
    for (const name of SERVICES) running.set(name, startService(name));
    await eventually('RuntimeReady', async () => (await condition('RuntimeReady')).status, 20_000);
    const again = ExecSyncRequest.fromPartial({ ...request, cmd: ['echo', 'still here'] });
    assert.equal(
      Buffer.from((await cri.call('execSync', again)).stdout).toString(),
      'still here\n',
    );
  });

  it('says in one line what is wrong with its configuration, and exits with 1', async () => {
    const file = join(root, 'etc', 'wrong.toml');
    writeFileSync(file, '[log]\nlevel = "loud"\n');
    for (const name of SERVICES) {
      const bundle = join(PROJECT_ROOT, 'dist', `${name}.mjs`);
      const { code, stderr } = await runCommand(NODE, [bundle, '--config', file]);
      assert.equal(code, 1, name);
      assert.match(stderr, new RegExp(`^${name}: .*log\\.level = "loud": must be one of .*\n$`));
    }
  });

  function startService(name: string): ChildProcess {
    const config = join(root, 'etc', `${name}.toml`);
    return start(NODE, [join(PROJECT_ROOT, 'dist', `${name}.mjs`), '--config', config]);
  }

  async function condition(type: string) {
    const answer = await cri.call('status', StatusRequest.fromPartial({}), { timeoutMs: 3_000 });
    const found = answer.status?.conditions.find((row) => row.type === type);
    assert.ok(found !== undefined, `a condition ${type}`);
    return found;
  }
});

describe('a stack with --nats and --redis', () => {
  let base: string;
  let servers: Servers | undefined;
  let stack: Stack | undefined;
  let host: HostSnapshot;

  before(() => {
    host = snapshotHost();
    base = mkdtempSync(join(tmpdir(), 'cribus-e2e-'));
  });
  afterEach(async () => {
    await stack?.destroy();
    await servers?.stop();
    stack = undefined;
    servers = undefined;
    assertNothingLeaked(host);
  });
  after(() => rmSync(base, { recursive: true, force: true }));

  for (const password of ['', 'pass-2718']) {
    const how = password === '' ? 'without credentials' : 'with credentials in their URLs';
    it(`uses servers that are there already, ${how}, and starts none`, async () => {
      servers = await startServers(base, password);
      const { natsUrl, redisUrl } = servers;
      stack = await startStack({ upArgs: ['--nats', natsUrl, '--redis', redisUrl] });
      const json = await stack.cribus('status', '--json');
      const parts: { name: string; pid: number | null; state: string; version: string }[] =
        JSON.parse(json.stdout).parts;
      assert.ok(
        parts.every((part) => part.state === 'running'),
        json.stdout,
      );
      for (const part of parts.slice(0, 2)) {
        assert.equal(part.pid, null, part.name);
        assert.match(part.version, /^\d+\.\d+/);
      }
      const config = {
        metadata: { name: 'p', uid: 'p', namespace: 'default', attempt: 0 },
        linux: {},
      };
      await stack.cri.call('runPodSandbox', RunPodSandboxRequest.fromPartial({ config }));
      assert.equal((await stack.cribus('pods')).stdout.trimEnd().split('\n').length, 2);
      if (password !== '') assertNoSecret(stack.root, password);
      // Removed by a stack that has to be started again with the same servers.
      assert.equal((await stack.cribus('down')).code, 0);
      const down = await stack.cribus('down', '--pods');
      assert.equal(down.code, 0, down.stderr);
      assert.match(down.stdout, /^Stopped and removed 1 pod\.$/m);
    });
  }

  it('says that a server is not there in one sentence, which holds no password', async () => {
    const port = await freePort();
    const root = join(base, 'none');
    const url = `nats://cribus:pass-1414@127.0.0.1:${port}`;
    const up = await runCommand(CRIBUS, ['up', '--root', root, '--nats', url]);
    assert.equal(up.code, 1);
    assert.match(
      up.stderr,
      new RegExp(`^cribus: [^\n]*--nats[^\n]*127\\.0\\.0\\.1:${port}[^\n]*\n$`),
    );
    assert.doesNotMatch(up.stdout + up.stderr, /pass-1414/);
    const down = await runCommand(CRIBUS, ['down', '--pods', '--root', root]);
    assert.equal(down.code, 0, down.stderr);
  });
});

function assertNoSecret(root: string, secret: string): void {
  for (const part of [...SERVICES, 'up']) {
    const text = readFileSync(join(root, 'log', `${part}.log`), 'utf8');
    assert.ok(!text.includes(secret), `${part}.log holds a password`);
  }
}
