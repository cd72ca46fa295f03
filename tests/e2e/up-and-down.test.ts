// The life of a stack as the one who types the commands sees it: up, status, parts that die, down,
// and the mistakes that people make.

import assert from 'node:assert/strict';
import { readdirSync, readFileSync, statSync } from 'node:fs';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { connect } from 'node:net';
import { networkInterfaces, tmpdir } from 'node:os';
import { join } from 'node:path';
import { ListContainersRequest } from '@cribus/contracts/gen/cri/v1/api.ts';
import { after, before, describe, it } from 'mocha';
import { startForeground } from './harness/foreground.ts';
import { startTestRegistry, type TestRegistry } from './harness/images.ts';
import { assertNothingLeaked, type HostSnapshot, snapshotHost } from './harness/leaks.ts';
import { exec, pull, type RunningPod, runPod } from './harness/pods.ts';
import { CRIBUS, eventually, runCommand, type Stack, startStack } from './harness/stack.ts';

const PARTS = [
  'nats-server',
  'redis-server',
  'image-service',
  'sandbox-manager',
  'runtime-runc',
  'runtime-gvisor',
  'cri-gateway',
];
const SLEEP = 'trap "exit 0" TERM; while :; do sleep 0.1; done';

describe('a stack that is brought up with --detach', () => {
  let before_: HostSnapshot;
  let registry: TestRegistry;
  let stack: Stack;
  let pods: readonly RunningPod[];

  before(async () => {
    before_ = snapshotHost();
    registry = await startTestRegistry();
    stack = await startStack();
    await pull(stack.cri, registry.busybox);
    pods = await Promise.all(
      ['runc', 'gvisor'].map((handler) =>
        runPod(stack, { image: registry.busybox, script: SLEEP, handler }),
      ),
    );
  });

  after(async () => {
    await stack?.destroy();
    await registry?.stop();
    assertNothingLeaked(before_);
  });

  it('has returned with every part running, and says so as a table and as JSON', async () => {
    const json = await stack.cribus('status', '--json');
    assert.equal(json.code, 0);
    const report = JSON.parse(json.stdout);
    assert.deepEqual(
      report.parts.map((part: { name: string }) => part.name),
      PARTS,
    );
    for (const part of report.parts) {
      assert.equal(part.state, 'running', part.name);
      assert.ok(readFileSync(`/proc/${part.pid}/cmdline`, 'utf8').includes(part.name));
      assert.match(part.version, /^\d+\.\d+\.\d+/);
      assert.ok(part.uptime_s >= 0 && part.uptime_s < 120, `${part.name}: ${part.uptime_s} s`);
      assert.ok(part.memory_bytes > 1_000_000, `${part.name}: ${part.memory_bytes} bytes`);
    }
    assert.equal(report.endpoint, `unix://${stack.root}/run/cribus.sock`);
    const text = await stack.cribus('status');
    assert.match(text.stdout, /^PART +STATE +VERSION +PID +UPTIME +MEMORY$/m);
    for (const part of report.parts) {
      assert.match(text.stdout, new RegExp(`^${part.name} +running +\\S+ +${part.pid} +\\d+`, 'm'));
    }
    assert.match(text.stdout, /^handlers +runc, crun, gvisor$/m);
    assert.match(text.stdout, /^warning +.*CAP_SYS_RESOURCE|^warning +.*runsc/m);
  });

  it('keeps NATS on loopback, Redis on a unix socket, and what it generated readable', async () => {
    const generated = join(stack.root, 'state', 'generated');
    const nats = await readFile(join(generated, 'nats-server.conf'), 'utf8');
    assert.match(nats, /^host: "127\.0\.0\.1"$/m);
    const redis = await readFile(join(generated, 'redis.conf'), 'utf8');
    assert.match(redis, /^port 0$/m);
    const { nats: port } = JSON.parse(await readFile(join(generated, 'ports.json'), 'utf8'));
    assert.equal(await dial('127.0.0.1', port), true);
    const outside = Object.values(networkInterfaces())
      .flatMap((rows) => rows ?? [])
      .find((row) => row.family === 'IPv4' && !row.internal);
    assert.ok(outside !== undefined, 'the pod network has an address on this host');
    assert.equal(await dial(outside.address, port), false);
    for (const socket of ['cribus.sock', 'redis.sock']) {
      assert.equal(statSync(join(stack.root, 'run', socket)).mode & 0o077, 0, socket);
    }
    const credentials = join(stack.root, 'state', 'credentials');
    assert.equal(statSync(credentials).mode & 0o777, 0o700);
    for (const name of readdirSync(credentials)) {
      assert.equal(statSync(join(credentials, name)).mode & 0o777, 0o600, name);
    }
  });

  it('is refused a second time in one sentence', async () => {
    const again = await stack.cribus('up');
    assert.equal(again.code, 1);
    assert.match(again.stderr, /^cribus: this stack is up already \(pid \d+ .*\n$/);
    assert.equal((await stack.status()).parts.length, PARTS.length);
  });

  it('starts a part that dies again, says so, and waits longer each time', async () => {
    for (let kill = 0; kill < 3; kill += 1) {
      const pid = await eventually('image-service runs', async () => {
        const part = (await stack.status()).parts.find((one) => one.name === 'image-service');
        return part?.state === 'running' && part.pid;
      });
      process.kill(pid, 'SIGKILL');
      await eventually('the part is another one', async () => {
        const part = (await stack.status()).parts.find((one) => one.name === 'image-service');
        return part?.state === 'running' && part.pid !== pid;
      });
    }
    const log = await readFile(join(stack.root, 'log', 'up.log'), 'utf8');
    const said = log.split('\n').filter((line) => line.startsWith('image-service ended'));
    assert.deepEqual(said, [
      'image-service ended (signal SIGKILL); starting it again.',
      'image-service ended (signal SIGKILL); starting it again in 0.1 s.',
      'image-service ended (signal SIGKILL); starting it again in 0.2 s.',
    ]);
  });

  it('leaves its containers running when it is taken down, and adopts them at the next up', async () => {
    const pidsBefore = await Promise.all(pods.map(initPid));
    const portsBefore = await portsOf(stack);
    const down = await stack.cribus('down');
    assert.equal(down.code, 0, down.stderr);
    assert.match(down.stdout, /^Stopped; containers keep running\.$/m);
    for (const pid of pidsBefore) assert.ok(process.kill(pid, 0), `pid ${pid} lives`);
    const silent = JSON.parse((await stack.cribus('status', '--json')).stdout);
    assert.ok(silent.parts.every((part: { state: string }) => part.state === 'dead'));

    const up = await stack.cribus('up', '--detach');
    assert.equal(up.code, 0, up.stdout + up.stderr);
    assert.deepEqual(await Promise.all(pods.map(initPid)), pidsBefore);
    assert.deepEqual(await portsOf(stack), portsBefore);
    for (const pod of pods) {
      assert.equal((await exec(stack.cri, pod.containerId, ['echo', 'here'])).stdout, 'here\n');
      const shown = await exec(stack.cri, pod.containerId, ['ip', '-4', 'addr']);
      assert.ok(shown.stdout.includes(pod.ip), `${pod.ip} in ${shown.stdout}`);
    }
  });

  it('is found again by the next up when its own up was killed, with the same parts', async () => {
    const pidsBefore = await Promise.all(pods.map(initPid));
    const partsBefore = (await stack.status()).parts.map(({ name, pid }) => ({ name, pid }));
    const lock = JSON.parse(await readFile(join(stack.root, 'run', 'up.lock'), 'utf8'));
    process.kill(lock.pid, 'SIGKILL');
    await eventually('up is gone', async () => !processExists(lock.pid));
    const up = await stack.cribus('up', '--detach');
    assert.equal(up.code, 0, up.stdout + up.stderr);
    assert.match(up.stdout, /^Found running, and kept: every part\.$/m);
    const parts = (await stack.status()).parts.map(({ name, pid }) => ({ name, pid }));
    assert.deepEqual(parts, partsBefore);
    assert.deepEqual(await Promise.all(pods.map(initPid)), pidsBefore);
  });

  it('lists pods, containers and images as crictl does', async () => {
    const shown = await stack.cribus('pods');
    assert.match(shown.stdout, /^POD ID +CREATED +STATE +NAME +NAMESPACE +ATTEMPT +RUNTIME$/m);
    const containers = await stack.cribus('ps');
    for (const pod of pods) {
      const row = new RegExp(`^${pod.podId.slice(0, 13)} .* Ready +${pod.config.metadata?.name} `);
      assert.match(shown.stdout, new RegExp(row.source, 'm'));
      const id = pod.containerId.slice(0, 13);
      assert.match(containers.stdout, new RegExp(`^${id} .* Running +main `, 'm'));
    }
    const images = await stack.cribus('images');
    assert.match(images.stdout, /127\.0\.0\.1:\d+\/test\/busybox +1 /);
  });

  it('stops in order at SIGTERM in the foreground, and leaves containers running', async () => {
    await stack.cribus('down');
    const up = startForeground(CRIBUS, ['up', '--root', stack.root]);
    await up.prints(/^Ready: CRI v1 at unix:/m);
    const pidsBefore = await Promise.all(pods.map(initPid));
    up.kill('SIGTERM');
    const { code, stdout } = await up.ended;
    assert.equal(code, 0);
    assert.match(
      stdout,
      /^Stopped; containers keep running, and the next "cribus up" adopts them\.$/m,
    );
    for (const pid of pidsBefore) assert.ok(processExists(pid), `pid ${pid} lives`);
    assert.match(await endOfLog('cri-gateway'), /"exit_code":0/);
    assert.match(await endOfLog('image-service'), /"exit_code":0/);
  });

  it('removes its pods with down --pods when it is not even up, and puts the host back', async () => {
    const pidsBefore = await Promise.all(pods.map(initPid));
    const down = await stack.cribus('down', '--pods');
    assert.equal(down.code, 0, down.stdout + down.stderr);
    assert.match(down.stdout, /^Stopped and removed 2 pods\.$/m);
    for (const pid of pidsBefore) assert.ok(!processExists(pid), `pid ${pid} is gone`);
    await registry.stop();
    assertNothingLeaked(before_);
  });

  async function initPid(pod: RunningPod): Promise<number> {
    const directory = join(stack.root, 'run', 'handlers');
    const files = readdirSync(directory).map((handler) =>
      join(directory, handler, pod.containerId, 'pid'),
    );
    const file = files.find((path) => existsAsFile(path));
    assert.ok(file !== undefined, `a pid file of ${pod.containerId}`);
    return Number((await readFile(file, 'utf8')).trim());
  }

  async function endOfLog(part: string): Promise<string> {
    const text = await readFile(join(stack.root, 'log', `${part}.log`), 'utf8');
    return text.trimEnd().split('\n').at(-1) ?? '';
  }
});

describe('a root directory whose path', () => {
  for (const { what, name } of [
    { what: 'has spaces, quotes and colons', name: `it's a "node": 1 2` },
    { what: 'is 90 characters long', name: 'n'.repeat(90 - tmpdir().length - 19) },
  ]) {
    it(`${what} holds a whole stack with pods under each handler`, async () => {
      const snapshot = snapshotHost();
      const registry = await startTestRegistry();
      const stack = await startStack({ name });
      try {
        if (what.includes('90')) assert.equal(stack.root.length, 90);
        await pull(stack.cri, registry.busybox);
        for (const handler of ['runc', 'crun', 'gvisor']) {
          const script = `echo data > /tmp/file; ${SLEEP}`;
          const pod = await runPod(stack, { image: registry.busybox, script, handler });
          await eventually('the file is written', async () => {
            const read = await exec(stack.cri, pod.containerId, ['cat', '/tmp/file']);
            return read.stdout === 'data\n';
          });
        }
        const request = ListContainersRequest.fromPartial({});
        assert.equal((await stack.cri.call('listContainers', request)).containers.length, 3);
      } finally {
        await stack.destroy();
        await registry.stop();
      }
      assertNothingLeaked(snapshot);
    });
  }
});

describe('what a person types wrong', () => {
  let base: string;

  before(async () => {
    base = await mkdtemp(join(tmpdir(), 'cribus-e2e-'));
  });
  after(() => rm(base, { recursive: true, force: true }));

  it('is an unknown command, option or argument, or one that is missing: the usage, and 2', async () => {
    const wrong: readonly (readonly [readonly string[], RegExp])[] = [
      [['upp'], /^There is no command "upp"; did you mean "up"\?\nUsage: cribus help\n$/],
      [['pull'], /^cribus pull needs REF\.\nUsage: cribus pull \[--root DIR\] REF\n$/],
      [['pull', 'a', 'b'], /^cribus pull takes no argument "b"\.\nUsage/],
      [['up', '--detatch'], /^cribus up: Unknown option '--detatch'\.\nUsage: cribus up/],
      [['status', '--root'], /^cribus status: .*--root.*\.\nUsage: cribus status/],
      [['down', '--root', ''], /^cribus down: option --root is empty\.\nUsage: cribus down/],
    ];
    for (const [args, sentence] of wrong) {
      const { code, stdout, stderr } = await runCommand(CRIBUS, args);
      assert.equal(code, 2, args.join(' '));
      assert.equal(stdout, '');
      assert.match(stderr, sentence);
    }
  });

  it('is asking a stack that is not up: one sentence that says how to start it, and 1', async () => {
    const root = join(base, 'never-up');
    for (const args of [['ps'], ['pods'], ['images'], ['pull', 'busybox'], ['tour']]) {
      const { code, stderr } = await runCommand(CRIBUS, [...args, '--root', root]);
      assert.equal(code, 1, args.join(' '));
      assert.match(
        stderr,
        /^cribus: [^\n]*start it with "cribus up --root \/[^\n]*\n$/,
        args.join(' '),
      );
    }
    const status = await runCommand(CRIBUS, ['status', '--root', root]);
    assert.equal(status.code, 1);
    assert.equal(status.stdout.match(/ dead/g)?.length, PARTS.length);
    assert.match(status.stdout, /start it with "cribus up --root \//);
    for (const args of [['down'], ['down', '--pods']]) {
      const down = await runCommand(CRIBUS, [...args, '--root', root]);
      assert.equal(down.code, 0);
      assert.equal(down.stderr, '');
      assert.match(down.stdout, /Nothing of this stack was running|no pod is left/);
    }
  });

  it('is a root that can not be: a file, below a file, read-only, or too long', async () => {
    const file = join(base, 'file');
    await writeFile(file, '');
    const roots: readonly (readonly [string, RegExp])[] = [
      [file, /^cribus: ENOTDIR: not a directory, [^\n]*\/file\/etc[^\n]*\n$/],
      [join(file, 'below'), /^cribus: ENOTDIR: not a directory, [^\n]*\/file\/below[^\n]*\n$/],
      ['/proc/sys/node', /^cribus: [^\n]*\/proc\/sys\/node[^\n]*\n$/],
      [join(base, 'a,b'), /^cribus: --root [^\n]*no path that contains , [^\n]*\n$/],
      [join(base, 'x'.repeat(100)), /^cribus: the socket [^\n]*longer[^\n]*shorter --root\n$/],
    ];
    for (const [root, sentence] of roots) {
      const { code, stderr } = await runCommand(CRIBUS, ['up', '--root', root]);
      assert.equal(code, 1, root);
      assert.match(stderr, sentence);
    }
  });

  it('is doing it without root: a sentence that says so, and nothing is made', async () => {
    const root = join(base, 'nobodys');
    const asNobody = ['--reuid=65534', '--regid=65534', '--clear-groups', CRIBUS];
    for (const command of ['up', 'down', 'tour']) {
      const { code, stderr } = await runCommand('setpriv', [...asNobody, command, '--root', root]);
      assert.equal(code, 1);
      assert.match(stderr, new RegExp(`^cribus: cribus ${command} needs root: [^\n]*sudo\n$`));
    }
    assert.ok(!readdirSync(base).includes('nobodys'));
  });
});

async function portsOf(stack: Stack): Promise<unknown> {
  return JSON.parse(await readFile(join(stack.root, 'state', 'generated', 'ports.json'), 'utf8'));
}

function processExists(pid: number): boolean {
  try {
    // A process that ended and that nobody has asked about yet is none.
    return !/^State:\s+Z/m.test(readFileSync(`/proc/${pid}/status`, 'utf8'));
  } catch {
    return false;
  }
}

function existsAsFile(path: string): boolean {
  return statSync(path, { throwIfNoEntry: false })?.isFile() === true;
}

function dial(host: string, port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect({ host, port, timeout: 1_000 }, () => {
      socket.destroy();
      resolve(true);
    });
    socket.on('timeout', () => socket.destroy());
    socket.on('error', () => undefined);
    socket.on('close', () => resolve(false));
  });
}
