// The sandbox manager over a real nats-server, with real namespaces and the real bridge, host-local
// and portmap plugins. The plugins run in a network namespace that stands for the host's.

import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { mkdir, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { hostname, tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseConfig } from '@cribus/chassis/config.ts';
import { createOwner, type VerbContext } from '@cribus/chassis/owner.ts';
import { createTestService, type TestService } from '@cribus/chassis/testing/fake-service.ts';
import { createNatsServer, type TestServer } from '@cribus/chassis/testing/servers.ts';
import { Failure, isFailure } from '@cribus/contracts/failure.ts';
import { NamespaceMode, Protocol } from '@cribus/contracts/gen/cri/v1/api.ts';
import {
  type ObjectReport,
  SandboxPhase,
  type SandboxRecord,
} from '@cribus/contracts/gen/node/v1/records.ts';
import {
  DescribeRequest,
  ReportSandboxExitRequest,
  RunPodSandboxRequest,
  SandboxIdRequest,
  StartSandboxResponse,
} from '@cribus/contracts/gen/node/v1/verbs.ts';
import { rootsBelow, sandboxPaths } from '@cribus/contracts/paths.ts';
import {
  type RequestOf,
  runtimeOwner,
  SANDBOX_MANAGER,
  type VerbName,
} from '@cribus/contracts/subjects.ts';
import { detectCgroups } from '@cribus/host/cgroups.ts';
import { systemClock } from '@cribus/host/clock.ts';
import { mountsBelow, unmountTree } from '@cribus/host/mounts.ts';
import { createNamespaces, isNamespacePin, removeNamespacePin } from '@cribus/host/namespaces.ts';
import { after, afterEach, before, beforeEach, describe, it } from 'mocha';
import { startSandboxManager } from './sandbox-owner.ts';

const RUNC = runtimeOwner('runc');
const PLUGINS = '/usr/lib/cni';

describe('sandbox manager', () => {
  let nats: TestServer;
  let asker: TestService;
  let root: string;
  /** Stands for the host's network namespace. */
  let hostNet: string;
  const open: TestService[] = [];

  before(async () => {
    nats = await createNatsServer();
    await nats.start();
  });
  after(() => nats.close());
  beforeEach(async () => {
    root = await mkdtemp(join(tmpdir(), 'sandbox-manager-'));
    hostNet = join(root, 'hostnet');
    createNamespaces({ pins: { net: hostNet } });
    await writeNetwork();
    asker = await createTestService({ natsUrl: nats.url, name: 'cri-gateway' });
    open.push(asker);
  });
  afterEach(async () => {
    for (const one of open.splice(0)) await one.stop();
    removeNamespacePin(hostNet);
    const left = mountsBelow(root).map(({ mountPoint }) => mountPoint);
    unmountTree(root);
    await rm(root, { recursive: true, force: true });
    assert.deepEqual(left, [], 'mounts were left');
  });

  /** Wrappers that run the real plugins inside `hostNet`, and note each run. */
  async function writeNetwork(): Promise<void> {
    const bin = join(root, 'bin');
    await mkdir(bin);
    for (const type of ['bridge', 'portmap']) {
      const script = `#!/bin/sh\necho "$CNI_COMMAND ${type} $CNI_CONTAINERID" >>${root}/runs
exec nsenter --net=${hostNet} ${PLUGINS}/${type}\n`;
      await writeFile(join(bin, type), script, { mode: 0o755 });
    }
    const conf = join(root, 'etc/cni/net.d');
    await mkdir(conf, { recursive: true });
    const ipam = {
      type: 'host-local',
      dataDir: join(root, 'ipam'),
      ranges: [[{ subnet: '10.201.7.0/24' }]],
      routes: [{ dst: '0.0.0.0/0' }],
    };
    const bridge = { type: 'bridge', bridge: 'tst0', isGateway: true, ipMasq: false, ipam };
    const portmap = { type: 'portmap', capabilities: { portMappings: true } };
    const list = { cniVersion: '1.0.0', name: 'test', plugins: [bridge, portmap] };
    await writeFile(join(conf, '10-test.conflist'), JSON.stringify(list));
  }

  async function manager(): Promise<TestService> {
    const plain = await createTestService({ natsUrl: nats.url, name: 'sandbox-manager' });
    const text = `[cni]\nbin_dirs = ["${root}/bin", "${PLUGINS}"]\n`;
    const config = parseConfig(text, { file: 'test.toml', directory: root });
    const service: TestService = { ...plain, config };
    open.push(service);
    await startSandboxManager(service);
    return service;
  }

  type Seen = { verb: string; id: string };
  async function worker(
    answers: { start?: (record: SandboxRecord, context: VerbContext) => Promise<void> } = {},
  ): Promise<{ seen: Seen[]; service: TestService }> {
    const service = await createTestService({ natsUrl: nats.url, name: 'runtime-runc' });
    open.push(service);
    const seen: Seen[] = [];
    const refuse = async (): Promise<never> => {
      throw new Failure('unsupported', 'not in this test');
    };
    const note = (verb: string) => async (request: SandboxIdRequest) => {
      seen.push({ verb, id: request.podSandboxId });
      return {};
    };
    const owner = createOwner({
      service,
      kind: 'runtime',
      name: RUNC,
      epoch: 1n,
      directory: await mkdtemp(join(root, 'worker-')),
      stores: [],
      describe: () => ({}),
      verbs: {
        'start-sandbox': async (request, context) => {
          const { sandbox } = request;
          assert.ok(sandbox);
          seen.push({ verb: 'start-sandbox', id: sandbox.id });
          await answers.start?.(sandbox, context);
          return StartSandboxResponse.fromPartial({});
        },
        'stop-sandbox': note('stop-sandbox'),
        'remove-sandbox': note('remove-sandbox'),
        'create-container': refuse,
        'start-container': refuse,
        'stop-container': refuse,
        'remove-container': refuse,
        'reopen-container-log': refuse,
        'exec-sync': refuse,
        exec: refuse,
        attach: refuse,
        'port-forward': refuse,
        'update-container-resources': refuse,
        'checkpoint-container': refuse,
        'sample-containers': refuse,
        describe: refuse,
      },
    });
    await owner.serve();
    return { seen, service };
  }

  async function ask<V extends VerbName>(verb: V, request: RequestOf<V>, operationId?: string) {
    return asker.bus.ask(verb, request, {
      owner: SANDBOX_MANAGER,
      signal: systemClock.timeout(15_000),
      requestId: 'test',
      ...(operationId === undefined ? {} : { operationId }),
    });
  }

  const pod = (name: string, config: object = {}) =>
    RunPodSandboxRequest.fromPartial({
      handler: 'runc',
      config: { metadata: { name, uid: `${name}-uid`, namespace: 'default' }, ...config },
    });
  const run = async (request: RunPodSandboxRequest, operationId?: string) => {
    const answer = await ask('run-pod-sandbox', request, operationId);
    return { id: answer.result.podSandboxId, changed: answer.changed };
  };
  const byId = (podSandboxId: string) => SandboxIdRequest.fromPartial({ podSandboxId });
  const get = async (id: string) => (await ask('get-sandbox', byId(id))).result.sandbox;
  const leases = async () =>
    (await readdir(join(root, 'ipam/test')).catch(() => [])).filter((name) => /^\d/.test(name));
  const inside = (netns: string, ...command: string[]) =>
    spawnSync('nsenter', [`--net=${netns}`, ...command], { encoding: 'utf8' }).stdout;
  const hostLinks = () => inside(hostNet, 'ip', '-o', 'link', 'show', 'type', 'veth').trim();

  function reported(changed: readonly ObjectReport[], id: string): SandboxRecord | undefined {
    const report = changed.find((one) => one.id === id);
    return report?.object?.$case === 'sandbox' ? report.object.value : undefined;
  }

  it('removes the cgroups that it made for pods, those above them with the last', async () => {
    await manager();
    await worker();
    const cgroups = detectCgroups();
    const top = `/test-${process.pid}`;
    const inCgroup = (name: string) =>
      pod(name, { linux: { cgroupParent: `${top}/burstable/${name}` } });
    const { id: first } = await run(inCgroup('first'));
    const { id: second } = await run(inCgroup('second'));
    await ask('remove-pod-sandbox', byId(first));
    assert.equal(cgroups.isAbsent(`${top}/burstable/first`), true);
    assert.equal(cgroups.exists(`${top}/burstable/second`), true);
    await ask('remove-pod-sandbox', byId(second));
    assert.equal(cgroups.isAbsent(top), true);
    cgroups.create(top);
    const { id: third } = await run(inCgroup('third'));
    await ask('remove-pod-sandbox', byId(third));
    assert.equal(cgroups.isAbsent(`${top}/burstable`), true);
    assert.equal(cgroups.exists(top), true, 'it was there before');
    assert.equal(cgroups.removeEmpty(top), true);
  });

  it('runs, stops and removes a pod, and leaves nothing', async () => {
    await manager();
    const { seen } = await worker();
    const request = pod('web', {
      hostname: 'web',
      logDirectory: join(root, 'logs/web'),
      dnsConfig: { servers: ['10.96.0.10'], searches: ['a.b', 'c'], options: ['ndots:5'] },
      portMappings: [{ protocol: Protocol.TCP, containerPort: 80, hostPort: 18080 }],
      linux: {
        sysctls: { 'net.ipv4.conf.eth0.arp_ignore': '1', 'kernel.shm_rmid_forced': '1' },
      },
    });
    const { id, changed } = await run(request);
    assert.match(id, /^[0-9a-f]{64}$/);
    assert.equal(reported(changed, id)?.phase, SandboxPhase.READY);
    const record = await get(id);
    assert.ok(record?.network);
    assert.match(record.network.ips[0] ?? '', /^10\.201\.7\.\d+$/);
    const { namespaces, directory } = record;
    assert.ok(namespaces && isNamespacePin(namespaces.net) && isNamespacePin(namespaces.uts));
    assert.match(inside(namespaces.net, 'ip', 'addr'), /inet 10\.201\.7\.\d+\/24/);
    assert.match(inside(namespaces.net, 'ip', 'link', 'show', 'lo'), /UP,LOWER_UP/);
    const sysctl = '/proc/sys/net/ipv4/conf/eth0/arp_ignore';
    assert.equal(inside(namespaces.net, 'cat', sysctl).trim(), '1');
    assert.equal(
      await readFile(join(directory, 'resolv.conf'), 'utf8'),
      'search a.b c\nnameserver 10.96.0.10\noptions ndots:5\n',
    );
    assert.equal(await readFile(join(directory, 'hostname'), 'utf8'), 'web\n');
    assert.ok(existsSync(join(root, 'logs/web')));
    const { pins } = sandboxPaths(rootsBelow(root), id);
    assert.deepEqual(
      mountsBelow(pins)
        .map(({ mountPoint, filesystem }) => [mountPoint.slice(pins.length + 1), filesystem])
        .sort(),
      [
        ['ipc', 'nsfs'],
        ['net', 'nsfs'],
        ['shm', 'tmpfs'],
        ['uts', 'nsfs'],
      ],
    );
    assert.match(inside(hostNet, 'iptables-save', '-t', 'nat'), /dport 18080/);

    const { result } = await ask('describe', DescribeRequest.fromPartial({ id }));
    const info = JSON.parse(result.info['info'] ?? '');
    assert.equal(info.runtimeSpec.linux.namespaces[0].path, namespaces.net);
    assert.equal(info.config.log_directory, join(root, 'logs/web'));
    assert.equal(info.cniResult.Interfaces.eth0.IPConfigs[0].IP, record.network.ips[0]);

    const stopped = await ask('stop-pod-sandbox', byId(id));
    assert.equal(reported(stopped.changed, id)?.phase, SandboxPhase.NOTREADY);
    assert.deepEqual(await leases(), []);
    assert.equal(hostLinks(), '');
    assert.deepEqual(mountsBelow(pins), []);
    await ask('stop-pod-sandbox', byId(id));
    await ask('remove-pod-sandbox', byId(id));
    await ask('remove-pod-sandbox', byId(id));
    await ask('stop-pod-sandbox', byId(id));
    assert.ok(!existsSync(directory) && !existsSync(pins));
    assert.deepEqual(
      seen.map(({ verb }) => verb),
      ['start-sandbox', 'stop-sandbox', 'remove-sandbox'],
    );
    await assert.rejects(get(id), (error) => isFailure(error, 'not_found'));
  });

  it('gives a host-network pod neither network nor host name of its own', async () => {
    await manager();
    await worker();
    const namespaceOptions = { network: NamespaceMode.NODE, ipc: NamespaceMode.NODE };
    const { id } = await run(pod('host', { linux: { securityContext: { namespaceOptions } } }));
    const record = await get(id);
    assert.deepEqual(record?.namespaces, { net: '', ipc: '', uts: '', user: '' });
    assert.deepEqual(record?.network?.ips, []);
    const name = await readFile(join(record?.directory ?? '', 'hostname'), 'utf8');
    assert.equal(name, `${hostname()}\n`);
    await ask('remove-pod-sandbox', byId(id));
    assert.ok(!existsSync(join(root, 'runs')));
  });

  it('undoes everything when a step fails', async () => {
    await manager();
    await worker({
      start: async () => {
        throw new Failure('wrong_state', 'the engine is broken', { stage: 'start-sandbox' });
      },
    });
    await assert.rejects(
      run(pod('broken')),
      (error) => isFailure(error, 'wrong_state') && /the engine is broken/.test(error.message),
    );
    await assert.rejects(
      run(pod('sysctl', { linux: { sysctls: { 'net.no.such': '1' } } })),
      (error) => isFailure(error, 'invalid_argument') && /net\.no\.such/.test(error.message),
    );
    const script = '#!/bin/sh\necho \'{"code":11,"msg":"try later","details":"busy"}\'\nexit 1\n';
    const portmap = '[ "$CNI_COMMAND" = DEL ] && exit 0\n';
    await writeFile(join(root, 'bin/portmap'), script.replace('\n', `\n${portmap}`));
    await assert.rejects(
      run(pod('plugin', { portMappings: [{ containerPort: 80, hostPort: 18080 }] })),
      (error) =>
        isFailure(error, 'unavailable') &&
        /^CNI ADD \(portmap\): sandbox [0-9a-f]{64}: try later \(code 11\); busy/.test(
          error.message,
        ),
    );
    assert.deepEqual(await leases(), []);
    assert.equal(hostLinks(), '');
    const roots = rootsBelow(root);
    assert.deepEqual(await readdir(join(roots.state, 'sandboxes')), []);
    assert.deepEqual(await readdir(join(roots.run, 'sandboxes')), []);
  });

  it('joins a retry, answers it again, and refuses a duplicate', async () => {
    await manager();
    const { seen } = await worker({ start: () => systemClock.sleep(300) });
    const [first, joined] = await Promise.all([run(pod('twice')), run(pod('twice'))]);
    assert.equal(joined.id, first.id);
    assert.equal(reported(joined.changed, first.id)?.phase, SandboxPhase.READY);
    assert.equal(seen.length, 1);
    // The asker acknowledged what it got, so the same request is a duplicate now.
    await systemClock.sleep(100);
    await assert.rejects(
      run(pod('twice')),
      (error) => isFailure(error, 'already_exists') && error.message.includes(first.id),
    );
    const running = run(pod('other'));
    await systemClock.sleep(100);
    await assert.rejects(run(pod('other', { hostname: 'x' })), (error) =>
      isFailure(error, 'conflict'),
    );
    for (const id of [first.id, (await running).id]) await ask('remove-pod-sandbox', byId(id));
  });

  it('finishes at the next start what a crash left', async () => {
    const first = await manager();
    let started: ((record: SandboxRecord) => void) | undefined;
    const half = new Promise<SandboxRecord>((resolve) => {
      started = resolve;
    });
    const { seen } = await worker({
      start: async (record) => {
        if (record.config?.metadata?.name !== 'half') return;
        started?.(record);
        await systemClock.sleep(60_000, systemClock.timeout(1_000)).catch(() => undefined);
      },
    });
    const kept = await run(pod('kept'));
    const lost = await run(pod('lost'));
    const caught = run(pod('half')).catch((error: unknown) => error);
    const { id: halfId } = await half;
    await first.crash();
    open.splice(open.indexOf(first), 1);
    // As after a reboot, for one of them.
    unmountTree(sandboxPaths(rootsBelow(root), lost.id).pins);
    await mkdir(join(rootsBelow(root).run, 'sandboxes/stray'), { recursive: true });
    const again = await restarted();
    assert.equal((await get(kept.id))?.phase, SandboxPhase.READY);
    const marked = await get(lost.id);
    assert.equal(marked?.phase, SandboxPhase.NOTREADY);
    assert.match(marked?.reason ?? '', /namespaces are gone: net, ipc, uts/);
    assert.ok(!existsSync(join(rootsBelow(root).run, 'sandboxes/stray')));
    // The call is asked again by the bus with its operation id, and makes the pod anew.
    const result = (await caught) as { id: string };
    assert.notEqual(result.id, halfId);
    assert.equal((await get(result.id))?.phase, SandboxPhase.READY);
    assert.ok(seen.some(({ verb, id }) => verb === 'remove-sandbox' && id === halfId));
    await systemClock.sleep(300);
    assert.equal((await leases()).length, 2);
    for (const id of [kept.id, lost.id, result.id]) await ask('remove-pod-sandbox', byId(id));
    assert.deepEqual(await leases(), []);
    assert.ok(again);
  });

  it('marks pods of an earlier boot not ready, frees their addresses, and removes them', async () => {
    const first = await manager();
    await worker();
    const ran = await run(pod('ran', { portMappings: [{ containerPort: 80, hostPort: 18081 }] }));
    const { id: ofHost } = await run(
      pod('of-host', {
        linux: { securityContext: { namespaceOptions: { network: NamespaceMode.NODE } } },
      }),
    );
    await first.crash();
    open.splice(open.indexOf(first), 1);
    const { run: runs, state } = rootsBelow(root);
    // A run directory on a disk keeps its files, and nothing is mounted on them any more.
    unmountTree(join(runs, 'sandboxes'));
    await writeFile(join(state, 'sandbox-manager/boot-id'), 'of an earlier boot');
    await restarted();
    for (const id of [ran.id, ofHost]) {
      assert.equal((await get(id))?.phase, SandboxPhase.NOTREADY);
      assert.equal((await get(id))?.reason, 'the node was restarted');
    }
    const limit = systemClock.timeout(8_000);
    while ((await leases()).length > 0) await systemClock.sleep(20, limit);
    const metadata = { name: 'ran', uid: 'ran-uid', namespace: 'default', attempt: 1 };
    const { id: anew } = await run(pod('ran', { metadata }));
    for (const record of [ran.id, ofHost, anew]) {
      await ask('stop-pod-sandbox', byId(record));
      await ask('remove-pod-sandbox', byId(record));
      assert.equal(existsSync(sandboxPaths(rootsBelow(root), record).pins), false);
    }
  });

  /** The crashed one's lock is held by this very process, so its file is replaced. */
  async function restarted(): Promise<TestService> {
    await rm(join(rootsBelow(root).state, 'sandbox-manager/lock'));
    return manager();
  }

  it('tries a CNI DEL that failed again, at growing distances, and says so in the record', async () => {
    await manager();
    await worker();
    const { id } = await run(pod('stuck'));
    const broken = join(root, 'bin', 'bridge');
    const script = await readFile(broken, 'utf8');
    await writeFile(
      broken,
      `#!/bin/sh\ndate +%s%3N >>${root}/tries; echo out of order >&2; exit 3\n`,
    );
    await assert.rejects(ask('stop-pod-sandbox', byId(id)), /CNI DEL \(bridge\).*out of order/);
    const record = await get(id);
    assert.equal(record?.phase, SandboxPhase.STOPPING);
    assert.match(record?.reason ?? '', /^being stopped, .*CNI DEL \(bridge\).*out of order/);
    const tries = async () =>
      (await readFile(`${root}/tries`, 'utf8')).trim().split('\n').map(Number);
    const end = systemClock.monotonicMs() + 25_000;
    while ((await tries()).length < 5) {
      assert.ok(systemClock.monotonicMs() < end, 'it is not tried again');
      await systemClock.sleep(50);
    }
    // Heartbeats, every two seconds, drive it: delays of one second and of two may come out alike.
    const [, first = 0, second = 0, third = 0, fourth = 0] = await tries();
    assert.ok(fourth - third > second - first + 500, `at ${first}, ${second}, ${third}, ${fourth}`);
    await writeFile(broken, script);
    // A caller needn't wait for the next one.
    await ask('stop-pod-sandbox', byId(id));
    assert.equal((await get(id))?.reason, 'stopped');
    assert.deepEqual(await leases(), []);
    await ask('remove-pod-sandbox', byId(id));
  }).timeout(40_000);

  it('resumes a stop when the worker is back, and takes note of an exit', async () => {
    await manager();
    const { service } = await worker();
    const { id } = await run(pod('later'));
    const exit = ReportSandboxExitRequest.fromPartial({ podSandboxId: id, reason: 'init died' });
    const { changed } = await ask('report-sandbox-exit', exit);
    assert.equal(reported(changed, id)?.phase, SandboxPhase.NOTREADY);
    assert.equal(reported(changed, id)?.reason, 'init died');
    await service.stop();
    open.splice(open.indexOf(service), 1);
    await assert.rejects(ask('stop-pod-sandbox', byId(id)), (error) =>
      isFailure(error, 'unavailable'),
    );
    assert.equal((await get(id))?.phase, SandboxPhase.STOPPING);
    assert.deepEqual(await leases(), []);
    await worker();
    const end = systemClock.monotonicMs() + 8_000;
    while ((await get(id))?.phase !== SandboxPhase.NOTREADY) {
      assert.ok(systemClock.monotonicMs() < end, 'the stop was not resumed');
      await systemClock.sleep(100);
    }
    await ask('remove-pod-sandbox', byId(id));
  });
});
