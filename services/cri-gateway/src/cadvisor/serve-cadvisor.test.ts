import assert from 'node:assert/strict';
import { existsSync, mkdirSync, renameSync, rmdirSync, statSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { request } from 'node:http';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseConfig } from '@cribus/chassis/config.ts';
import type { Logger } from '@cribus/chassis/log.ts';
import {
  ContainerPhase,
  ContainerRecord,
  SandboxPhase,
  SandboxRecord,
} from '@cribus/contracts/gen/node/v1/records.ts';
import { runtimeOwner, SANDBOX_MANAGER } from '@cribus/contracts/subjects.ts';
import { systemClock } from '@cribus/host/clock.ts';
import { afterEach, beforeEach, describe, it } from 'mocha';
import { CONTAINER, ID, report, silent } from '../testing/start-gateway.ts';
import { createNodeView, type NodeView } from '../view/node-view.ts';
import { serveCadvisor } from './serve-cadvisor.ts';

const OWN = { 'io.kubernetes.pod.name': 'web', app: 'shop' };

function sandbox(fields: Partial<SandboxRecord> = {}) {
  const value = SandboxRecord.fromPartial({
    id: ID,
    handler: 'runc',
    config: { metadata: { name: 'web', uid: 'u1', namespace: 'shop', attempt: 2 }, labels: OWN },
    phase: SandboxPhase.READY,
    createdAtNs: 1_764_000_000_000_000_001n,
    namespaces: { net: '/run/net' },
    network: { ips: ['10.0.0.2', 'fd00::2'] },
    ...fields,
  });
  return report(SANDBOX_MANAGER, { $case: 'sandbox', value });
}

function container(fields: Partial<ContainerRecord> = {}, revision = 1n) {
  const value = ContainerRecord.fromPartial({
    id: CONTAINER,
    sandboxId: ID,
    handler: 'runc',
    config: {
      metadata: { name: 'nginx', attempt: 3 },
      image: { image: 'sha256:1', userSpecifiedImage: 'docker.io/library/nginx:1' },
      annotations: { 'io.kubernetes.container.restartCount': '3' },
    },
    phase: ContainerPhase.RUNNING,
    process: { pid: 4711 },
    createdAtNs: 1_764_000_000_000_000_003n,
    logPath: '/var/log/pods/shop_web_u1/nginx/3.log',
    ...fields,
  });
  return report(runtimeOwner('runc'), { $case: 'container', value }, revision);
}

describe('the endpoint for cAdvisor', () => {
  let directory = '';
  let view: NodeView;
  const stops: (() => Promise<void> | void)[] = [];
  const works: Promise<unknown>[] = [];
  const errors: string[] = [];
  beforeEach(async () => {
    directory = await mkdtemp(join(tmpdir(), 'cribus-cadvisor-'));
    view = createNodeView(systemClock);
  });
  afterEach(async () => {
    for (const stop of stops.splice(0)) await stop();
    await rm(directory, { recursive: true });
  });

  const socket = () => join(directory, 'crio', 'crio.sock');
  const serve = async (path = socket()) => {
    const text = `[kubelet]\ncadvisor_socket = "${path}"`;
    const config = parseConfig(text, { file: 'test', directory });
    const onStop = (_step: string, work: () => Promise<void> | void) => void stops.push(work);
    const log: Logger = {
      ...silent,
      error: (fields) => void errors.push((fields as { error: Error }).error.message),
    };
    const background = (_name: string, work: Promise<unknown>) => void works.push(work);
    // Time to look again comes at once.
    const clock = { ...systemClock, sleep: (ms: number) => systemClock.sleep(Math.min(ms, 50)) };
    const stopping = new AbortController().signal;
    await serveCadvisor({ config, clock, log, onStop, background, stopping }, view);
  };
  const get = (path: string) =>
    new Promise<{ status: number | undefined; text: string }>((resolve, reject) => {
      const asked = request({ socketPath: socket(), path, headers: { host: 'crio' } }, (answer) => {
        let text = '';
        answer.on('data', (chunk) => {
          text += chunk;
        });
        answer.on('end', () => resolve({ status: answer.statusCode, text }));
      });
      asked.on('error', reject);
      asked.end();
    });

  it('tells where containers are and what they are stored by', async () => {
    await serve();
    assert.deepEqual(JSON.parse((await get('/info')).text), {
      storage_driver: 'overlay',
      storage_root: join(directory, 'state'),
      storage_image: '',
    });
    assert.equal(statSync(socket()).mode & 0o777, 0o600);
  });

  it('tells of a container its name, pid, image, labels, log and the directory of its layer', async () => {
    await serve();
    view.apply(sandbox());
    view.apply(container());
    const { status, text } = await get(`/containers/${CONTAINER}`);
    assert.equal(status, 200);
    assert.match(text, /"created_time":1764000000000000003,/);
    const { created_time: _, ...told } = JSON.parse(text);
    assert.deepEqual(told, {
      name: 'k8s_nginx_web_shop_u1_3',
      pid: 4711,
      image: 'docker.io/library/nginx:1',
      labels: {
        'io.kubernetes.pod.name': 'web',
        'io.kubernetes.pod.namespace': 'shop',
        'io.kubernetes.pod.uid': 'u1',
        'io.kubernetes.container.name': 'nginx',
      },
      annotations: { 'io.kubernetes.container.restartCount': '3' },
      log_path: '/var/log/pods/shop_web_u1/nginx/3.log',
      root: join(directory, 'state', 'handlers', 'runc', 'containers', CONTAINER),
      sandbox: ID,
      ip_address: '10.0.0.2',
      ip_addresses: ['10.0.0.2', 'fd00::2'],
    });
  });

  it('tells of a sandbox that it is POD, with the pid of what runs in its network', async () => {
    await serve();
    view.apply(sandbox());
    const ask = async () => JSON.parse((await get(`/containers/${ID}`)).text);
    const idle = await ask();
    assert.equal(idle.pid, 0);
    assert.equal(idle.name, 'k8s_POD_web_shop_u1_2');
    assert.deepEqual(idle.labels, {
      ...OWN,
      'io.kubernetes.pod.namespace': 'shop',
      'io.kubernetes.pod.uid': 'u1',
      'io.kubernetes.container.name': 'POD',
    });
    assert.ok(existsSync(join(idle.root, 'diff')), 'what cAdvisor looks for is there');
    view.apply(container());
    assert.equal((await ask()).pid, 4711);
    view.apply(container({ phase: ContainerPhase.EXITED }, 2n));
    assert.equal((await ask()).pid, 0);
    view.apply(container({ id: ID, sandboxProcess: true, process: { pid: 42 } as never }));
    view.apply(container({}, 3n));
    assert.equal((await ask()).pid, 42, "the sandbox's own process comes first");
  });

  it("gives no pid for a sandbox in the host's network, whose traffic is not the pod's", async () => {
    await serve();
    view.apply(sandbox({ namespaces: SandboxRecord.fromPartial({}).namespaces }));
    view.apply(container());
    assert.equal(JSON.parse((await get(`/containers/${ID}`)).text).pid, 0);
  });

  it('answers an unknown id with 404 and its name, after it may have been reported', async () => {
    await serve();
    const { status, text } = await get('/containers/none');
    assert.deepEqual([status, text], [404, 'there is no container none']);
    const late = get(`/containers/${CONTAINER}`);
    await systemClock.sleep(60);
    view.apply(container());
    assert.equal((await late).status, 200);
  });

  it('leaves a socket alone on which somebody answers, says so, and has it once that is over', async () => {
    mkdirSync(join(directory, 'crio'));
    const other = createServer((connection) => connection.end()).listen(socket());
    await new Promise((resolve) => other.once('listening', resolve));
    await serve();
    assert.deepEqual(errors, [
      `listen: another server answers on ${socket()} (kubelet.cadvisor_socket)`,
    ]);
    assert.equal(other.listening, true);
    await new Promise((resolve) => other.close(resolve));
    await Promise.all(works);
    assert.equal((await get('/info')).status, 200);
  });

  it('takes over a socket that was left behind, and takes its own away', async () => {
    mkdirSync(join(directory, 'crio'));
    // As one that was killed leaves it: closed without being unlinked.
    const left = createServer().listen(`${socket()}.moved`);
    await new Promise((resolve) => left.once('listening', resolve));
    renameSync(`${socket()}.moved`, socket());
    await new Promise((resolve) => left.close(resolve));
    assert.equal(existsSync(socket()), true);
    await serve();
    assert.equal((await get('/info')).status, 200);
    for (const stop of stops.splice(0)) await stop();
    assert.equal(existsSync(socket()), false);
    assert.equal(existsSync(join(directory, 'crio')), true, 'a directory that was there stays');
    rmdirSync(join(directory, 'crio'));
    await serve();
    for (const stop of stops.splice(0)) await stop();
    assert.equal(existsSync(join(directory, 'crio')), false);
  });

  it('takes away every directory that it made, and none that somebody put something in', async () => {
    const path = join(directory, 'a', 'b', 'crio.sock');
    await serve(path);
    for (const stop of stops.splice(0)) await stop();
    assert.equal(existsSync(join(directory, 'a')), false);
    await serve(path);
    mkdirSync(join(directory, 'a', 'of-others'));
    for (const stop of stops.splice(0)) await stop();
    assert.equal(existsSync(join(directory, 'a', 'b')), false);
    assert.equal(existsSync(join(directory, 'a', 'of-others')), true);
  });
});
