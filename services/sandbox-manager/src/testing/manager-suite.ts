// A sandbox manager over a real nats-server, with real namespaces and the real bridge, host-local and
// portmap plugins. The plugins run in a network namespace that stands for the host's.

import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { mkdir, mkdtemp, readdir, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseConfig } from '@cribus/chassis/config.ts';
import { createOwner, type VerbContext } from '@cribus/chassis/owner.ts';
import { createTestService, type TestService } from '@cribus/chassis/testing/fake-service.ts';
import { createNatsServer, type TestServer } from '@cribus/chassis/testing/servers.ts';
import { Failure } from '@cribus/contracts/failure.ts';
import type { ObjectReport, SandboxRecord } from '@cribus/contracts/gen/node/v1/records.ts';
import {
  RunPodSandboxRequest,
  SandboxIdRequest,
  StartSandboxResponse,
} from '@cribus/contracts/gen/node/v1/verbs.ts';
import { rootsBelow } from '@cribus/contracts/paths.ts';
import {
  type RequestOf,
  runtimeOwner,
  SANDBOX_MANAGER,
  type VerbName,
} from '@cribus/contracts/subjects.ts';
import { systemClock } from '@cribus/host/clock.ts';
import { mountsBelow, unmountTree } from '@cribus/host/mounts.ts';
import { createNamespaces, removeNamespacePin } from '@cribus/host/namespaces.ts';
import { after, afterEach, before, beforeEach } from 'mocha';
import { startSandboxManager } from '../sandbox-owner.ts';

const RUNC = runtimeOwner('runc');
const PLUGINS = '/usr/lib/cni';

/** What a worker of a test was asked, in order. */
export type Asked = { readonly verb: string; readonly id: string };

export interface WorkerAnswers {
  readonly start?: (record: SandboxRecord, context: VerbContext) => Promise<void>;
}

/** Sets up a root and a network for each test of the block that calls it, and clears them away. */
export function managerSuite() {
  let nats: TestServer;
  let asker: TestService;
  let root: string;
  let hostNet: string;
  const open: TestService[] = [];
  const opened = (service: TestService) => {
    open.push(service);
    return service;
  };
  const closed = (service: TestService) => open.splice(open.indexOf(service), 1);

  before(async () => {
    nats = await createNatsServer();
    await nats.start();
  });
  after(() => nats.close());
  beforeEach(async () => {
    root = await mkdtemp(join(tmpdir(), 'sandbox-manager-'));
    hostNet = join(root, 'hostnet');
    createNamespaces({ pins: { net: hostNet } });
    await writeNetwork(root, hostNet);
    asker = opened(await createTestService({ natsUrl: nats.url, name: 'cri-gateway' }));
  });
  afterEach(async () => {
    for (const one of open.splice(0)) await one.stop();
    removeNamespacePin(hostNet);
    const left = mountsBelow(root).map(({ mountPoint }) => mountPoint);
    unmountTree(root);
    await rm(root, { recursive: true, force: true });
    assert.deepEqual(left, [], 'mounts were left');
  });

  const start = async () =>
    startManager(
      await createTestService({ natsUrl: nats.url, name: 'sandbox-manager' }),
      root,
      opened,
    );

  return {
    get root() {
      return root;
    },
    /** Stands for the host's network namespace. */
    get hostNet() {
      return hostNet;
    },
    manager: start,
    /** The crashed one's lock is held by this very process, so its file is replaced. */
    restart: async () => {
      await rm(join(rootsBelow(root).state, 'sandbox-manager/lock'));
      return start();
    },
    worker: async (answers: WorkerAnswers = {}) => {
      const service = opened(await createTestService({ natsUrl: nats.url, name: 'runtime-runc' }));
      const directory = await mkdtemp(join(root, 'worker-'));
      return { service, seen: await serveWorker(service, directory, answers) };
    },
    crash: async (service: TestService) => {
      await service.crash();
      closed(service);
    },
    stop: async (service: TestService) => {
      await service.stop();
      closed(service);
    },
    ...calls(() => asker),
    /** The addresses that are taken. */
    leases: async () =>
      (await readdir(join(root, 'ipam/test')).catch(() => [])).filter((name) => /^\d/.test(name)),
  };
}

async function startManager(
  plain: TestService,
  root: string,
  opened: (service: TestService) => TestService,
): Promise<TestService> {
  const text = `[cni]\nbin_dirs = ["${root}/bin", "${PLUGINS}"]\n`;
  const config = parseConfig(text, { file: 'test.toml', directory: root });
  const service = opened({ ...plain, config });
  await startSandboxManager(service);
  return service;
}

function calls(asker: () => TestService) {
  const ask = async <V extends VerbName>(verb: V, request: RequestOf<V>) =>
    asker().bus.ask(verb, request, {
      owner: SANDBOX_MANAGER,
      signal: systemClock.timeout(15_000),
      requestId: 'test',
    });
  return {
    ask,
    run: async (request: RunPodSandboxRequest) => {
      const answer = await ask('run-pod-sandbox', request);
      return { id: answer.result.podSandboxId, changed: answer.changed };
    },
    get: async (id: string) => (await ask('get-sandbox', byId(id))).result.sandbox,
  };
}

/** Wrappers that run the real plugins inside `hostNet`, and note each run. */
async function writeNetwork(root: string, hostNet: string): Promise<void> {
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

/** Serves as runc's worker, for sandboxes only; what it is asked is appended to the answer. */
async function serveWorker(
  service: TestService,
  directory: string,
  answers: WorkerAnswers,
): Promise<Asked[]> {
  const seen: Asked[] = [];
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
    directory,
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
  return seen;
}

/** A request for a pod of runc. */
export function pod(name: string, config: object = {}): RunPodSandboxRequest {
  return RunPodSandboxRequest.fromPartial({
    handler: 'runc',
    config: { metadata: { name, uid: `${name}-uid`, namespace: 'default' }, ...config },
  });
}

export function byId(podSandboxId: string): SandboxIdRequest {
  return SandboxIdRequest.fromPartial({ podSandboxId });
}

/** The sandbox's record among those that a reply has. */
export function reported(changed: readonly ObjectReport[], id: string): SandboxRecord | undefined {
  const report = changed.find((one) => one.id === id);
  return report?.object?.$case === 'sandbox' ? report.object.value : undefined;
}

/** What a command writes in a network namespace. */
export function inside(netns: string, ...command: string[]): string {
  return spawnSync('nsenter', [`--net=${netns}`, ...command], { encoding: 'utf8' }).stdout;
}
