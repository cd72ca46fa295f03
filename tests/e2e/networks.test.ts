// Where pods get their network from: the operator's configuration, the stack's own, or none; and a
// stack that lives in a network namespace of its own.

import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdir, mkdtemp, readdir, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import {
  PodSandboxStatusRequest,
  Protocol,
  RemovePodSandboxRequest,
  RunPodSandboxRequest,
  StatusRequest,
} from '@cribus/contracts/gen/cri/v1/api.ts';
import { after, before, describe, it } from 'mocha';
import { connectCri } from './harness/cri.ts';
import { assertNothingLeaked, type HostSnapshot, snapshotHost } from './harness/leaks.ts';
import { podConfig, runSandbox } from './harness/pods.ts';
import { CRIBUS, eventually, runCommand, type Stack, startStack } from './harness/stack.ts';

describe('the network of pods', () => {
  let host: HostSnapshot;
  let stack: Stack;
  let directory: string;

  before(async () => {
    host = snapshotHost();
    stack = await startStack();
    directory = join(stack.root, 'etc', 'cni', 'net.d');
  });
  after(async () => {
    await stack?.destroy();
    assertNothingLeaked(host);
  });

  it("is the stack's own bridge where the directory holds no configuration, and up says so", async () => {
    const log = execFileSync('cat', [join(stack.root, 'log', 'up.log')], { encoding: 'utf8' });
    const said = /^No network configuration in (.*): pods get (10\.\d+\.\d+)\.0\/24 on (cb-.*)\.$/m;
    const [, where, net] = said.exec(log) ?? [];
    assert.equal(where, directory);
    assert.ok((await ipOfNewPod()).startsWith(`${net}.`));
  });

  it('is the one that appears in the directory, at once', async () => {
    await mkdir(directory, { recursive: true });
    const file = join(directory, '05-mine.conflist');
    const ipam = {
      type: 'host-local',
      ranges: [[{ subnet: '10.250.77.0/24' }]],
      dataDir: join(stack.root, 'ipam'),
    };
    const plugins = [{ type: 'bridge', bridge: 'cbtest77', isGateway: true, ipam }];
    await writeFile(file, JSON.stringify({ cniVersion: '1.0.0', name: 'mine', plugins }));
    try {
      assert.match(await ipOfNewPod(), /^10\.250\.77\./);
      const network = await networkReady(true);
      assert.ok(network.status, network.message);
    } finally {
      execFileSync('sh', ['-c', 'ip link delete cbtest77 2>/dev/null || true']);
    }
  });

  it('is the next file where one is broken, which Status names', async () => {
    const file = join(directory, '01-broken.conflist');
    await writeFile(file, '{ "cniVersion": "1.0.0", "name": "broken", "plugins": [');
    const named = await eventually('Status names the file', async () => {
      const { message } = await networkReady(true);
      return message.includes(file) && message;
    });
    assert.ok(named.startsWith(join(directory, '05-mine.conflist')), named);
  });

  it('is not ready while the only file is broken, and Status names the file', async () => {
    const file = join(directory, '01-broken.conflist');
    await rm(join(directory, '05-mine.conflist'));
    const network = await networkReady(false);
    assert.ok(network.message.includes(file), network.message);
    assert.match((await stack.cribus('status')).stdout, /^NetworkReady +no: .*01-broken/m);
    const config = await podConfig(stack);
    const request = RunPodSandboxRequest.fromPartial({ config });
    await assert.rejects(stack.cri.call('runPodSandbox', request), /01-broken\.conflist/);
  });

  it("is the stack's own again when the directory is empty again", async () => {
    for (const name of await readdir(directory)) await rm(join(directory, name));
    await networkReady(true);
    assert.match(await ipOfNewPod(), /^10\.(8[89]|9\d|1[01]\d|12[0-7])\./);
  });

  async function ipOfNewPod(): Promise<string> {
    const { podSandboxId } = await runSandbox(stack);
    const { status } = await stack.cri.call(
      'podSandboxStatus',
      PodSandboxStatusRequest.fromPartial({ podSandboxId }),
    );
    await stack.cri.call('removePodSandbox', RemovePodSandboxRequest.fromPartial({ podSandboxId }));
    return status?.network?.ip ?? '';
  }

  function networkReady(wanted: boolean) {
    return eventually(`NetworkReady is ${wanted}`, async () => {
      const answer = await stack.cri.call('status', StatusRequest.fromPartial({}));
      const network = answer.status?.conditions.find((row) => row.type === 'NetworkReady');
      return network?.status === wanted && network;
    });
  }
});

describe('a stack in a network namespace of its own, where lo is down', () => {
  const namespace = `cribus-e2e-${process.pid}`;
  let host: HostSnapshot;
  let base: string;

  before(async () => {
    host = snapshotHost();
    base = await mkdtemp(join(tmpdir(), 'cribus-e2e-'));
    execFileSync('ip', ['netns', 'add', namespace]);
  });
  after(async () => {
    await within(CRIBUS, 'down', '--pods', '--root', join(base, 'node'));
    execFileSync('ip', ['netns', 'delete', namespace]);
    await rm(base, { recursive: true, force: true });
  });

  it('keeps its links, rules and listeners there, and puts them back there', async () => {
    const root = join(base, 'node');
    const linksBefore = await links();
    const up = await within(CRIBUS, 'up', '--detach', '--root', root);
    assert.equal(up.code, 0, up.stdout + up.stderr);
    assert.match(up.stdout, /^The loopback interface .* was down: brought it up\.$/m);

    // The CRI socket is a file, so it is reached from anywhere.
    const cri = connectCri(`unix://${root}/run/cribus.sock`);
    const metadata = { name: 'pod', uid: 'pod', namespace: 'default', attempt: 0 };
    const portMappings = [
      { protocol: Protocol.TCP, containerPort: 80, hostPort: 8080, hostIp: '' },
    ];
    const config = { metadata, portMappings, linux: {} };
    await cri.call('runPodSandbox', RunPodSandboxRequest.fromPartial({ config }));
    cri.close();

    const outside = snapshotHost();
    assert.deepEqual(
      [...outside.links].filter((one) => !host.links.has(one)),
      [],
    );
    assert.deepEqual(
      [...outside.rules].filter((one) => !host.rules.has(one)),
      [],
    );
    assert.deepEqual([...outside.sysctls], [...host.sysctls]);
    assert.match(await links(), /cb-[0-9a-f]{8}/);
    assert.match((await within('iptables', '-t', 'nat', '-S')).stdout, /--dport 8080 /);
    const port = /http:\/\/127\.0\.0\.1:\{(\d+),/.exec(up.stdout)?.[1];
    const health = [
      'busybox',
      'wget',
      '-q',
      '-O',
      '-',
      `http://127.0.0.1:${port}/healthz`,
    ] as const;
    assert.equal((await within(...health)).code, 0);
    assert.notEqual((await runCommand(health[0], health.slice(1))).code, 0);

    const down = await within(CRIBUS, 'down', '--pods', '--root', root);
    assert.equal(down.code, 0, down.stdout + down.stderr);
    assert.equal(await links(), linksBefore.replace('state DOWN', 'state UNKNOWN'));
    assert.doesNotMatch((await within('iptables', '-t', 'nat', '-S')).stdout, /CNI/);
  });

  it('is refused where the way into the namespace hides the cgroups', async () => {
    const args = ['netns', 'exec', namespace, CRIBUS, 'up', '--root', join(base, 'hidden')];
    const { code, stderr } = await runCommand('ip', args);
    assert.equal(code, 1);
    assert.match(stderr, /^cribus: no cgroup is mounted .* with nsenter --net=FILE\n$/);
  });

  it('leaves nothing on the host outside', () => {
    const { mounts, ...rest } = snapshotHost();
    const added = [...mounts].filter((one) => !host.mounts.has(one) && !one.endsWith(namespace));
    // `ip netns` makes its directory a mount, once on a machine.
    assert.deepEqual(
      added.filter((one) => one !== '/run/netns'),
      [],
    );
    assertNothingLeaked({ ...host, mounts });
    assert.ok(rest.links.size > 0);
  });

  function within(...words: readonly string[]) {
    return runCommand('nsenter', [`--net=/run/netns/${namespace}`, ...words]);
  }

  async function links(): Promise<string> {
    const { stdout } = await within('ip', '-br', 'link');
    return stdout
      .replaceAll(/ +/g, ' ')
      .replaceAll(/<[^>]*>/g, '')
      .replace(/lo (DOWN|UNKNOWN|UP)/, 'lo');
  }
});
