// The sandbox's own process, where its handler or its namespaces want one: the reaping init of a
// shared PID namespace (catatonit -P), or gVisor's root container, the Sentry.

import { randomUUID } from 'node:crypto';
import { constants, statSync } from 'node:fs';
import { copyFile, mkdir, rename } from 'node:fs/promises';
import { join } from 'node:path';
import type { VerbContext, VerbHandler } from '@cribus/chassis/owner.ts';
import { Failure } from '@cribus/contracts/failure.ts';
import { NamespaceMode } from '@cribus/contracts/gen/cri/v1/api.ts';
import {
  ContainerPhase,
  ContainerRecord,
  type SandboxRecord,
} from '@cribus/contracts/gen/node/v1/records.ts';
import { isErrno } from '@cribus/host/errno.ts';
import { removeTree, writeFileAtomic } from '@cribus/host/files.ts';
import { isAlive } from '@cribus/host/processes.ts';
import { resolveCommand } from '@cribus/host/spawn.ts';
import { buildSandboxSpec } from '@cribus/oci/build-sandbox-spec.ts';
import { invalidOf } from '@cribus/oci/invalid-field.ts';
import { buildSeccomp } from '@cribus/oci/seccomp.ts';
import type { HostFacts } from '@cribus/oci/spec-input.ts';
import {
  allowedSandboxAnnotations,
  cgroupPathOf,
  cgroupsPath,
  hostnameOf,
  readLocalhostSeccomp,
} from './container-spec.ts';
import { createByMonitor } from './create-by-monitor.ts';
import { CONTAINER_RECORD_FORMAT, discard } from './create-container.ts';
import { refuseHostProcesses } from './host-processes.ts';
import { makeOrUndo } from './make-or-undo.ts';
import { removeOne } from './remove-container.ts';
import { sandboxAppArmor } from './sandbox-labels.ts';
import { refuseSysctls } from './sandbox-sysctls.ts';
import { makeReachable, refuseUserNamespace, userNamespaceOf, withdraw } from './user-namespace.ts';
import { placesOf, stamp, type Worker } from './worker.ts';

/** `catatonit -P` does nothing but reap. */
const INIT = 'catatonit';

/** Answers the process, or none where containers just join the sandbox's namespaces. */
export function startSandbox(worker: Worker, facts: () => HostFacts): VerbHandler<'start-sandbox'> {
  return async (request, context) => {
    const sandbox = request.sandbox;
    if (sandbox === undefined) throw new Failure('invalid_argument', 'no sandbox was given');
    if (worker.driver.unavailable !== undefined) {
      throw new Failure('unavailable', worker.driver.unavailable, { stage: worker.handler });
    }
    refuseHostProcesses(worker, sandbox.config?.linux?.securityContext?.namespaceOptions);
    refuseSysctls(worker, sandbox.config?.linux?.sysctls ?? {});
    refuseUserNamespace(worker, sandbox);
    const appArmorProfile = await sandboxAppArmor(worker, sandbox, facts());
    worker.fenced.delete(sandbox.id);
    if (!wantsProcess(worker, sandbox)) return { process: undefined };
    const known = worker.store.get(sandbox.id);
    if (known !== undefined) {
      const runs = known.phase === ContainerPhase.RUNNING && known.process !== undefined;
      if (runs && known.process !== undefined && isAlive(known.process)) {
        return { process: known.process };
      }
      await removeOne(worker, sandbox.id, context);
    }
    return { process: await build(worker, { sandbox, context, facts: facts(), appArmorProfile }) };
  };
}

function wantsProcess(worker: Worker, sandbox: SandboxRecord): boolean {
  if (worker.driver.sandboxModel === 'root-container') return true;
  const mode = sandbox.config?.linux?.securityContext?.namespaceOptions?.pid ?? NamespaceMode.POD;
  return mode === NamespaceMode.POD;
}

interface Order {
  readonly sandbox: SandboxRecord;
  readonly context: VerbContext;
  readonly facts: HostFacts;
  readonly appArmorProfile: string | undefined;
}

async function build(worker: Worker, order: Order) {
  const { sandbox, context } = order;
  const { id } = sandbox;
  const places = placesOf(worker, id);
  return await makeOrUndo(worker, { id, context }, async (rollback) => {
    const record = newRecord(worker, order);
    rollback.add('take the sandbox process away', async (signal) => {
      await discard(worker, worker.store.get(id) ?? record, signal);
      await worker.store.remove(id, { changed: context.changed });
      await removeTree(places.directory);
    });
    await mkdir(places.persist, { recursive: true, mode: 0o700 });
    await mkdir(places.bundle, { recursive: true, mode: 0o700 });
    await worker.store.put(record, { changed: context.changed });
    const engineArgs = await writeSpec(worker, order);
    const created = await createByMonitor(worker, record, {
      terminal: false,
      engineArgs,
      signal: context.signal,
    });
    withdraw(id);
    await worker.changes.apply(id, () => ({ phase: ContainerPhase.CREATED, ...created }));
    const startedAtNs = worker.service.clock.nowNs();
    await worker.engine.start(id, context.signal);
    const after = await worker.changes.apply(
      id,
      () => ({
        phase: ContainerPhase.RUNNING,
        startedAtNs,
        operation: stamp(worker, 'start-sandbox', context),
      }),
      { changed: context.changed },
    );
    if (after !== undefined) worker.exits.watch(after);
    return created.process;
  });
}

function newRecord(worker: Worker, { sandbox }: Order): ContainerRecord {
  return ContainerRecord.fromPartial({
    format: CONTAINER_RECORD_FORMAT,
    id: sandbox.id,
    sandboxId: sandbox.id,
    handler: worker.handler,
    sandboxProcess: true,
    phase: ContainerPhase.CREATING,
    createdAtNs: worker.service.clock.nowNs(),
    stopSignal: 'KILL',
    cgroupPath:
      sandbox.config === undefined ? '' : cgroupPathOf(worker, sandbox.config, ownRole(sandbox)),
    sandboxVersion: sandbox.version,
    podName: sandbox.config?.metadata?.name ?? '',
    podNamespace: sandbox.config?.metadata?.namespace ?? '',
  });
}

function ownRole({ id }: SandboxRecord) {
  return { id, kind: 'sandbox-process' } as const;
}

/** Answers the driver's further arguments for it. */
async function writeSpec(
  worker: Worker,
  { sandbox, facts, appArmorProfile }: Order,
): Promise<readonly string[]> {
  const config = sandbox.config;
  if (config === undefined) {
    throw new Failure('invalid_argument', `sandbox ${sandbox.id} has no configuration`);
  }
  const pins = sandbox.namespaces;
  const pod = userNamespaceOf(sandbox);
  const rootfs = await initRootfs(worker);
  const orHost = (path: string | undefined) => (path ? path : ('host' as const));
  const built = buildSandboxSpec({
    sandboxId: sandbox.id,
    sandbox: config,
    rootfs: pod === undefined ? rootfs : makeReachable(sandbox.id, rootfs, pod),
    args: [`/${INIT}`, '-P'],
    namespaces: {
      network: orHost(pins?.net),
      ipc: orHost(pins?.ipc),
      uts: orHost(pins?.uts),
      pid: 'own',
      ...(pod === undefined ? {} : { user: pod.path }),
    },
    ...(pod === undefined ? {} : { uidMappings: pod.uids, gidMappings: pod.gids }),
    host: facts,
    seccomp: await initSeccomp(worker, sandbox, facts),
    appArmorProfile,
    cgroupsPath: cgroupsPath(worker, config, ownRole(sandbox)),
    annotations: allowedSandboxAnnotations(worker, config),
  });
  const role = { kind: 'sandbox-process', sandboxId: sandbox.id, name: '' } as const;
  const named = { ...built.spec, ...ownKernelName(worker, sandbox) };
  const spec = worker.driver.amendSpec(named, role);
  const { bundle } = placesOf(worker, sandbox.id);
  await writeFileAtomic(join(bundle, 'config.json'), JSON.stringify(spec));
  return worker.driver.createArgs?.(spec, role) ?? [];
}

/** A kernel of its own inherits no name from the host: a pod without one would have none at all. */
function ownKernelName(worker: Worker, sandbox: SandboxRecord): { readonly hostname?: string } {
  if (worker.driver.sandboxModel !== 'root-container') return {};
  return { hostname: hostnameOf(sandbox) };
}

/** The pod's filter for its init; a Sentry has filters of its own, and runs nothing of the pod's. */
async function initSeccomp(worker: Worker, sandbox: SandboxRecord, host: HostFacts) {
  const security = sandbox.config?.linux?.securityContext;
  if (security === undefined || worker.driver.sandboxModel === 'root-container') return undefined;
  const object = `sandbox ${sandbox.id}`;
  const localhost = await readLocalhostSeccomp(security, object);
  return buildSeccomp({ security, host, localhost, capabilities: [] }, invalidOf(object));
}

/** One read-only root filesystem for all inits of a handler: the directories, and the program. */
async function initRootfs(worker: Worker): Promise<string> {
  const rootfs = worker.paths.initRootfs;
  const program = join(rootfs, INIT);
  for (const name of ['proc', 'dev', 'sys', 'etc', 'tmp']) {
    await mkdir(join(rootfs, name), { recursive: true, mode: 0o755 });
  }
  try {
    const original = resolveCommand(INIT);
    if (isCopyOf(original, program)) return rootfs;
    // Pods start at the same time.
    const part = `${program}.${randomUUID()}`;
    await copyFile(original, part, constants.COPYFILE_FICLONE);
    await rename(part, program);
  } catch (error) {
    if (isErrno(error, 'ETXTBSY')) return rootfs;
    if (!isErrno(error, 'ENOENT')) throw error;
    throw new Failure('unavailable', `${INIT} is not installed: ${String(error)}`, {
      stage: 'sandbox process',
    });
  }
  return rootfs;
}

/** True when the copy was written after the original was last put there, and is as long. */
function isCopyOf(original: string, copy: string): boolean {
  const { size, ctimeMs } = statSync(original);
  const there = statSync(copy, { throwIfNoEntry: false });
  return there?.size === size && there.mtimeMs > ctimeMs;
}
