// For tests: a worker on the real host with a temporary root, whose other owners are played by the
// test. Needs root, conmon and the driver's engine.

import { randomUUID } from 'node:crypto';
import { cp, mkdir, mkdtemp, rm, symlink, writeFile } from 'node:fs/promises';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseConfig } from '@cribus/chassis/config.ts';
import type { Logger } from '@cribus/chassis/log.ts';
import { createMetrics } from '@cribus/chassis/metrics.ts';
import type { VerbContext, VerbTable } from '@cribus/chassis/owner.ts';
import type { Service } from '@cribus/chassis/service.ts';
import { Failure } from '@cribus/contracts/failure.ts';
import { ContainerConfig, PodSandboxConfig } from '@cribus/contracts/gen/cri/v1/api.ts';
import {
  ImageRecord,
  type ObjectReport,
  SandboxPhase,
  SandboxRecord,
} from '@cribus/contracts/gen/node/v1/records.ts';
import type { Session } from '@cribus/contracts/gen/node/v1/verbs.ts';
import { type Roots, sandboxPaths } from '@cribus/contracts/paths.ts';
import {
  createFrameReader,
  encodeFrame,
  FRAME,
  readFailureFrame,
} from '@cribus/contracts/session.ts';
import type { RequestOf, ResponseOf, VerbName } from '@cribus/contracts/subjects.ts';
import { systemClock } from '@cribus/host/clock.ts';
import { removeTree } from '@cribus/host/files.ts';
import { unmountTree } from '@cribus/host/mounts.ts';
import { createNamespaces, removeNamespacePin } from '@cribus/host/namespaces.ts';
import { adoptOrphansLate } from '@cribus/host/reap.ts';
import { adoptContainers } from './adoption.ts';
import { createWorker, type OpenedWorker } from './create-worker.ts';
import type { DriverProbe } from './driver.ts';
import { runtimeVerbs } from './start-handler.ts';

const BUSYBOX = '/bin/busybox';
const SILENT: Logger = {
  debug: () => undefined,
  info: () => undefined,
  warn: () => undefined,
  error: (fields, message) => console.error(message, fields),
  child: () => SILENT,
};

export interface WorkerFixture {
  readonly root: string;
  worker: OpenedWorker;
  verbs: VerbTable<'runtime'>;
  readonly sandbox: SandboxRecord;
  readonly asked: { readonly verb: VerbName; readonly request: unknown }[];
  context(options?: Partial<VerbContext>): VerbContext;
  /** As a process that is killed and started anew: nothing of the first is told to end. */
  restart(): Promise<void>;
  create(name: string, config: Partial<ContainerConfig>): Promise<string>;
  exec(id: string, cmd: readonly string[], timeoutS?: number): Promise<ExecOutcome>;
  /** Tells the worker to end, as a service that drains; only `restart` may come after it. */
  stop(): void;
  close(): Promise<void>;
}

export interface ExecOutcome {
  readonly stdout: string;
  readonly stderr: string;
  readonly exitCode: number;
}

export async function openWorkerFixture(options: {
  readonly handler: string;
  readonly family: 'runc' | 'gvisor';
  readonly engine: string;
  readonly probe: DriverProbe;
  /** Of NamespaceMode for PID; default CONTAINER. */
  readonly pid?: 0 | 1;
}): Promise<WorkerFixture> {
  // A colon and a space in the root find every place where a path is taken apart.
  adoptOrphansLate();
  const base = await mkdtemp(join(tmpdir(), 'cribus w:'));
  const root = join(base, 'r');
  const cgroup = `/cribus-test-${randomUUID().slice(0, 8)}`;
  const config = parseConfig(
    [
      `[cgroups]\nroot = "${cgroup}"`,
      `[runtimes]\ndefault = "${options.handler}"`,
      `[runtimes.handlers.${options.handler}]\nfamily = "${options.family}"\nengine = "${options.engine}"`,
    ].join('\n'),
    { file: 'test', directory: root },
  );
  let stop = new AbortController();
  const asked: WorkerFixture['asked'] = [];
  const sandbox = await makeSandbox(base, { ...options, cgroup, roots: config.roots });
  const image = await makeImage(base);
  const ask = async <V extends VerbName>(verb: V, request: RequestOf<V>) => {
    asked.push({ verb, request });
    const answers: Partial<Record<VerbName, unknown>> = {
      'get-sandbox': { sandbox },
      'take-lease': { image, layersDir: join(base, 'layers'), layerNames: ['1'], volumes: [] },
    };
    return (answers[verb] ?? {}) as ResponseOf<V>;
  };
  const context: WorkerFixture['context'] = (more) => ({
    requestId: 'request',
    operationId: randomUUID(),
    attempt: 1,
    requestHash: 'hash',
    signal: systemClock.timeout(60_000),
    log: SILENT,
    changed: [] as ObjectReport[],
    ask,
    ...more,
  });
  const open = async () => {
    if (stop.signal.aborted) stop = new AbortController();
    const service = fakeService(config, { stopping: stop.signal, ask });
    const worker = await createWorker(service, options.handler, options.probe);
    await adoptContainers(worker);
    await worker.sessions.listen();
    worker.exits.begin();
    return worker;
  };
  const worker = await open();
  const fixture: WorkerFixture = {
    root,
    worker,
    verbs: runtimeVerbs(worker),
    sandbox,
    asked,
    context,
    restart: async () => {
      fixture.worker.exits.close();
      await fixture.worker.sessions.close();
      fixture.worker = await open();
      fixture.verbs = runtimeVerbs(fixture.worker);
    },
    create: async (name, container) => {
      const answer = await fixture.verbs['create-container'](
        {
          podSandboxId: sandbox.id,
          config: ContainerConfig.fromPartial({
            metadata: { name, attempt: 0 },
            image: { image: 'busybox' },
            logPath: `${name}/0.log`,
            linux: { securityContext: { namespaceOptions: { pid: options.pid ?? 1 } } },
            ...container,
          }),
          sandboxConfig: sandbox.config,
        },
        context(),
      );
      return answer.containerId;
    },
    exec: async (id, cmd, timeoutS = 0) => {
      const request = { containerId: id, cmd: [...cmd], timeoutS: BigInt(timeoutS) };
      return await fetchSession(await fixture.verbs['exec-sync'](request, context()));
    },
    stop: () => stop.abort(new Failure('unavailable', 'runtime-runc stops')),
    close: async () => {
      await fixture.verbs['remove-sandbox']({ podSandboxId: sandbox.id }, context());
      stop.abort();
      fixture.worker.exits.close();
      await fixture.worker.sessions.close();
      removeNamespacePin(sandbox.namespaces?.net ?? '');
      fixture.worker.cgroups.remove(`${cgroup}/monitors`);
      fixture.worker.cgroups.remove(cgroup);
      unmountTree(base);
      await removeTree(base);
    },
  };
  return fixture;
}

function fakeService(
  config: Service['config'],
  options: {
    readonly stopping: AbortSignal;
    readonly ask: (verb: VerbName, request: never) => Promise<unknown>;
  },
): Service {
  return {
    name: 'runtime-runc',
    version: '0',
    instanceId: 'test',
    config,
    clock: systemClock,
    log: SILENT,
    bus: {
      node: 'test',
      ask: async (verb: VerbName, request: never) => ({
        result: await options.ask(verb, request),
        changed: [],
      }),
      publish: () => undefined,
    } as unknown as Service['bus'],
    mirror: { report: () => undefined } as unknown as Service['mirror'],
    metrics: createMetrics('test'),
    stopping: options.stopping,
    listenFds: [],
    readiness: () => undefined,
    onStop: () => undefined,
    background: (name, work) => {
      work.catch((error: unknown) => {
        if (!options.stopping.aborted) console.error(name, error);
      });
    },
  };
}

async function makeSandbox(
  base: string,
  options: {
    readonly roots: Roots;
    readonly cgroup: string;
    readonly handler: string;
    readonly pid?: 0 | 1;
  },
): Promise<SandboxRecord> {
  const id = randomUUID().replaceAll('-', '').repeat(2);
  const { directory, shm, resolvConf, hostname, hosts } = sandboxPaths(options.roots, id);
  for (const path of [directory, shm]) await mkdir(path, { recursive: true });
  for (const path of [resolvConf, hostname, hosts]) await writeFile(path, 'text\n');
  const net = join(base, 'net');
  createNamespaces({ pins: { net } });
  return SandboxRecord.fromPartial({
    id,
    handler: options.handler,
    phase: SandboxPhase.READY,
    directory,
    namespaces: { net },
    config: PodSandboxConfig.fromPartial({
      metadata: { name: 'pod', uid: 'uid', namespace: 'default', attempt: 0 },
      hostname: 'pod',
      logDirectory: join(base, 'logs'),
      linux: {
        cgroupParent: options.cgroup,
        securityContext: { namespaceOptions: { pid: options.pid ?? 1 } },
      },
    }),
  });
}

async function makeImage(base: string): Promise<ImageRecord> {
  const layer = join(base, 'layers', '1');
  for (const name of ['bin', 'etc', 'tmp', 'proc', 'dev', 'sys']) {
    await mkdir(join(layer, name), { recursive: true });
  }
  await cp(BUSYBOX, join(layer, 'bin/busybox'));
  const applets = ['sh', 'sleep', 'cat', 'echo', 'id', 'dd', 'hostname', 'ls', 'ps', 'head'];
  applets.push('tty', 'stty', 'seq', 'setsid', 'nc', 'kill', 'sha256sum', 'yes');
  for (const applet of applets) {
    await symlink('busybox', join(layer, 'bin', applet));
  }
  await writeFile(join(layer, 'etc/passwd'), 'root:x:0:0:root:/:/bin/sh\n');
  await rm(join(layer, 'etc/group'), { force: true });
  return ImageRecord.fromPartial({
    id: 'sha256:1',
    repoDigests: ['busybox@sha256:2'],
    configJson: Buffer.from(
      JSON.stringify({
        architecture: 'amd64',
        os: 'linux',
        config: { Env: ['PATH=/bin'], Cmd: ['sleep', '1000'] },
        rootfs: { diff_ids: [] },
      }),
    ),
  });
}

function fetchSession(session: Session): Promise<ExecOutcome> {
  return new Promise((resolve, reject) => {
    const socket = connect(session.socketPath);
    const out = { stdout: '', stderr: '' };
    socket.on('error', reject);
    socket.on('close', () => reject(new Error('the session ended without a last frame')));
    socket.write(encodeFrame(FRAME.secret, session.secret));
    const read = createFrameReader((type, payload) => {
      if (type === FRAME.stdout) out.stdout += payload.toString('utf8');
      if (type === FRAME.stderr) out.stderr += payload.toString('utf8');
      if (type === FRAME.failure) reject(readFailureFrame(payload));
      if (type === FRAME.exit) {
        const { exitCode } = JSON.parse(payload.toString('utf8')) as { exitCode: number };
        resolve({ ...out, exitCode });
      }
    });
    socket.on('data', read);
  });
}
