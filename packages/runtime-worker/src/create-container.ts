// CreateContainer: reserves the name, gathers sandbox and image, mounts the root filesystem, and has
// conmon and the engine create the process. Whatever fails, nothing stays.

import { randomBytes } from 'node:crypto';
import { chown, mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import type { VerbContext, VerbHandler } from '@cribus/chassis/owner.ts';
import type { Rollback } from '@cribus/chassis/rollback.ts';
import { Failure } from '@cribus/contracts/failure.ts';
import type { PodSandboxConfig } from '@cribus/contracts/gen/cri/v1/api.ts';
import {
  ContainerPhase,
  ContainerRecord,
  type ImageRecord,
  type LeasedVolume,
  SandboxPhase,
  type SandboxRecord,
} from '@cribus/contracts/gen/node/v1/records.ts';
import type { CreateContainerRequest } from '@cribus/contracts/gen/node/v1/verbs.ts';
import {
  IMAGE_SERVICE,
  MEMORY_OF_THE_PAST_MS,
  SANDBOX_MANAGER,
} from '@cribus/contracts/subjects.ts';
import { removeTree } from '@cribus/host/files.ts';
import { mountIdmappedOverlay } from '@cribus/host/idmapped-mounts.ts';
import { mountOverlay } from '@cribus/host/mounts.ts';
import type { HostFacts } from '@cribus/oci/spec-input.ts';
import {
  applyOrigin,
  type CheckpointOrigin,
  forgetOrigin,
  holdsCheckpoint,
  openArchive,
  openImage,
  refuseUserNamespace,
  withoutImage,
} from './checkpoint/origin.ts';
import { logPathOf, prepareLog } from './container-log.ts';
import { cgroupPathOf, MAPPED_VOLUMES, writeContainerSpec } from './container-spec.ts';
import { createByMonitor } from './create-by-monitor.ts';
import { refuseHostProcesses } from './host-processes.ts';
import { mountImageVolumes, volumeImages } from './image-volumes.ts';
import { makeOrUndo } from './make-or-undo.ts';
import { takeAway } from './remove-container.ts';
import { fileContext } from './selinux.ts';
import {
  checkContainerMappings,
  endMapping,
  type PodUserNamespace,
  userNamespaceOf,
} from './user-namespace.ts';
import { placesOf, stamp, type Worker } from './worker.ts';

/** Of records.proto's ContainerRecord. */
export const CONTAINER_RECORD_FORMAT = 1;
const NANOSECONDS_PER_MS = 1_000_000n;

export function createContainer(
  worker: Worker,
  facts: () => HostFacts,
): VerbHandler<'create-container'> {
  return async (request, context) => {
    const key = validate(worker, request);
    const running = worker.creations.get(key);
    if (running !== undefined) {
      if (running.requestHash !== context.requestHash) {
        throw new Failure('conflict', `container ${running.id} of this name is being created`);
      }
      return { containerId: await running.done };
    }
    const known = findByKey(worker, key);
    if (known !== undefined) return { containerId: answerAgain(worker, known, context) };
    if (worker.driver.unavailable !== undefined) {
      throw new Failure('unavailable', worker.driver.unavailable, { stage: worker.handler });
    }
    const id = randomBytes(32).toString('hex');
    const done = build(worker, { id, request, context, facts: facts() });
    const creation = {
      id,
      sandboxId: request.podSandboxId,
      requestHash: context.requestHash,
      done,
    };
    worker.creations.set(key, creation);
    try {
      return { containerId: await done };
    } finally {
      worker.creations.delete(key);
    }
  };
}

function keyOf(sandboxId: string, name: string, attempt: number): string {
  return `${sandboxId}/${name}/${attempt}`;
}

function validate(worker: Worker, request: CreateContainerRequest): string {
  const metadata = request.config?.metadata;
  if (metadata === undefined || metadata.name === '') {
    throw new Failure('invalid_argument', 'the container has no metadata.name');
  }
  if (request.podSandboxId === '') {
    throw new Failure('invalid_argument', `container ${metadata.name} names no sandbox`);
  }
  if ((request.config?.image?.image ?? '') === '') {
    throw new Failure('invalid_argument', `container ${metadata.name} names no image`);
  }
  refuseHostProcesses(worker, request.config?.linux?.securityContext?.namespaceOptions);
  if (worker.fenced.has(request.podSandboxId)) {
    throw new Failure('wrong_state', `sandbox ${request.podSandboxId} is being stopped`);
  }
  return keyOf(request.podSandboxId, metadata.name, metadata.attempt);
}

function findByKey(worker: Worker, key: string): ContainerRecord | undefined {
  return worker.store.all().find((record) => {
    const metadata = record.config?.metadata;
    if (record.sandboxProcess || metadata === undefined) return false;
    return keyOf(record.sandboxId, metadata.name, metadata.attempt) === key;
  });
}

/** The stored answer for a caller that never got it; else the name is taken. */
function answerAgain(worker: Worker, record: ContainerRecord, context: VerbContext): string {
  const done = record.operation;
  const untouched = record.phase === ContainerPhase.CREATED && done?.verb === 'create-container';
  const ageNs = worker.service.clock.nowNs() - (done?.finishedAtNs ?? 0n);
  const lost =
    untouched &&
    !done.acknowledged &&
    done.requestHash === context.requestHash &&
    ageNs < BigInt(MEMORY_OF_THE_PAST_MS) * NANOSECONDS_PER_MS;
  if ((untouched && done.operationId === context.operationId) || lost) return record.id;
  throw new Failure(
    'already_exists',
    `container ${record.config?.metadata?.name ?? ''} of sandbox ${record.sandboxId} exists as ${record.id}`,
  );
}

interface Order {
  readonly id: string;
  readonly request: CreateContainerRequest;
  readonly context: VerbContext;
  readonly facts: HostFacts;
  /** The operation id of its lease, where it is not its first. */
  readonly lease?: string;
  /** Whose image the request names. */
  readonly origin?: CheckpointOrigin;
}

async function build(worker: Worker, order: Order): Promise<string> {
  return await makeOrUndo(worker, order, (rollback) => make(worker, order, rollback));
}

async function make(worker: Worker, order: Order, rollback: Rollback): Promise<string> {
  const { id, context, facts } = order;
  const { origin, request, ...sources } = await gatherWithOrigin(worker, order, rollback);
  const record = await reserve(worker, { ...order, ...sources, request }, rollback);
  const pod = userNamespaceOf(sources.sandbox);
  if (origin !== undefined && pod !== undefined) refuseUserNamespace(origin);
  const sandbox = sources.sandbox.config;
  await prepareFiles(worker, record, { pod, sandbox, facts, rollback });
  if (origin !== undefined) await applyOrigin(worker, { id, origin, signal: context.signal });
  const { volumes, bundle } = placesOf(worker, id);
  const built = await writeContainerSpec(worker, {
    record,
    ...sources,
    facts,
    signal: context.signal,
    imageVolumes: await mountImageVolumes(volumes, { ...sources, userNamespace: pod?.path }),
  });
  for (const note of built.notes) context.log.info({ container: id }, note);
  const process = { terminal: record.config?.tty === true, engineArgs: built.engineArgs };
  // Its start restores it.
  const created =
    origin === undefined
      ? await createByMonitor(worker, record, { ...process, signal: context.signal })
      : { restore: true };
  if (pod !== undefined) endMapping(id, join(bundle, MAPPED_VOLUMES));
  const after = await worker.changes.apply(
    id,
    () => ({
      phase: ContainerPhase.CREATED,
      ...created,
      mounts: [...built.mounts],
      user: built.user,
      stopSignal: built.stopSignal,
      operation: stamp(worker, 'create-container', context),
    }),
    { changed: context.changed },
  );
  if (after !== undefined) worker.exits.watch(after);
  if (worker.fenced.has(record.sandboxId)) {
    throw new Failure('wrong_state', `sandbox ${record.sandboxId} is being stopped`);
  }
  return id;
}

interface Sources {
  readonly sandbox: SandboxRecord;
  readonly image: ImageRecord;
  readonly layersDir: string;
  readonly layerNames: readonly string[];
  readonly volumes: readonly LeasedVolume[];
}

/** As gather; where the request names a checkpoint, of the image below it. */
async function gatherWithOrigin(
  worker: Worker,
  order: Order,
  rollback: Rollback,
): Promise<Sources & { readonly origin?: CheckpointOrigin; readonly request: Order['request'] }> {
  const { id, request, context } = order;
  const from = { id, request, signal: context.signal };
  rollback.add('remove what a checkpoint had', async () => {
    await forgetOrigin(worker, id);
    if (worker.store.get(id) === undefined) await removeTree(placesOf(worker, id).directory);
  });
  const archive = await openArchive(worker, from);
  if (archive !== undefined) {
    const below = { request: archive.request, origin: archive };
    return { ...(await gather(worker, { ...order, ...below }, rollback)), ...below };
  }
  const sources = await gather(worker, order, rollback);
  if (!holdsCheckpoint(sources.image)) return { ...sources, request };
  const origin = await openImage(worker, { ...from, ...sources });
  const answer = { owner: IMAGE_SERVICE, operationId: `${id}.end-checkpoint-lease` };
  await context.ask('end-lease', { leaseId: id }, answer);
  const below = { request: origin.request, origin };
  const lease = `${id}.lease-below`;
  return { ...(await gather(worker, { ...order, ...below, lease }, rollback)), ...below };
}

/** Sandbox and image at the same time; both are awaited, so that an undo follows what it undoes. */
async function gather(worker: Worker, order: Order, rollback: Rollback): Promise<Sources> {
  const { id, request, context } = order;
  const { directory } = placesOf(worker, id);
  rollback.add('remove its directory', async () => {
    if (worker.store.get(id) === undefined) await removeTree(directory);
  });
  // Before the lease: a start after a crash finds the directory, and ends a lease of this id.
  await mkdir(directory, { recursive: true, mode: 0o700 });
  const endLease = (signal: AbortSignal) =>
    context.ask(
      'end-lease',
      { leaseId: id },
      { owner: IMAGE_SERVICE, operationId: `${id}.end-lease`, signal },
    );
  rollback.add('end the lease', async (signal) => {
    // What could not be taken away may still have the layers mounted: its removal ends the lease.
    if (worker.store.get(id) === undefined) await endLease(signal);
  });
  const [sandboxAnswer, lease] = await Promise.allSettled([
    context.ask('get-sandbox', { podSandboxId: request.podSandboxId }, { owner: SANDBOX_MANAGER }),
    context.ask(
      'take-lease',
      {
        leaseId: id,
        handler: worker.handler,
        image: request.config?.image?.image ?? '',
        volumeImages: volumeImages(request.config),
      },
      { owner: IMAGE_SERVICE, operationId: order.lease ?? `${id}.lease` },
    ),
  ]);
  if (sandboxAnswer.status === 'rejected') throw sandboxAnswer.reason;
  const sandbox = checkSandbox(worker, request.podSandboxId, sandboxAnswer.value.sandbox);
  if (lease.status === 'rejected') {
    throw order.origin === undefined ? lease.reason : withoutImage(order.origin, lease.reason);
  }
  const { image, layersDir, layerNames, volumes } = lease.value;
  if (image === undefined) throw new Failure('bug', `the lease of container ${id} has no image`);
  return { sandbox, image, layersDir, layerNames, volumes };
}

function checkSandbox(
  worker: Worker,
  id: string,
  sandbox: SandboxRecord | undefined,
): SandboxRecord {
  if (sandbox === undefined) throw new Failure('not_found', `sandbox ${id} does not exist`);
  if (sandbox.phase !== SandboxPhase.READY) {
    throw new Failure('wrong_state', `sandbox ${id} is not ready: ${sandbox.reason}`);
  }
  if (sandbox.handler !== worker.handler) {
    throw new Failure('bug', `sandbox ${id} belongs to handler ${sandbox.handler}`);
  }
  return sandbox;
}

async function reserve(
  worker: Worker,
  order: Order & Sources,
  rollback: Rollback,
): Promise<ContainerRecord> {
  const { id, request, context, sandbox } = order;
  const config = request.config;
  const sandboxConfig = sandbox.config;
  if (config === undefined || sandboxConfig === undefined) {
    throw new Failure('invalid_argument', `container ${id} has no configuration`);
  }
  checkContainerMappings(id, config, userNamespaceOf(sandbox));
  const record = ContainerRecord.fromPartial({
    format: CONTAINER_RECORD_FORMAT,
    id,
    sandboxId: sandbox.id,
    handler: worker.handler,
    config,
    phase: ContainerPhase.CREATING,
    createdAtNs: worker.service.clock.nowNs(),
    imageId: order.image.id,
    imageRef: order.image.repoDigests[0] ?? order.image.id,
    logPath: logPathOf(sandboxConfig.logDirectory, config.logPath),
    resources: config.linux?.resources,
    cgroupPath: cgroupPathOf(worker, sandboxConfig, { id, kind: 'container' }),
    sandboxVersion: sandbox.version,
    layersDir: order.layersDir,
    layerNames: [...order.layerNames],
    podName: sandboxConfig.metadata?.name ?? '',
    podNamespace: sandboxConfig.metadata?.namespace ?? '',
  });
  rollback.add('take the container away', async (signal) => {
    await worker.lifecycle.run(
      id,
      async () => {
        const now = worker.store.get(id);
        await discard(worker, now ?? record, signal);
        if (now !== undefined) await worker.store.remove(id, { changed: context.changed });
      },
      signal,
    );
  });
  return await worker.store.put(record, { changed: context.changed });
}

/** Kills what may run of a half-made container, then takes its places away. */
export async function discard(
  worker: Worker,
  record: ContainerRecord,
  signal: AbortSignal,
): Promise<void> {
  await worker.engine.kill(record.id, '9', signal);
  await worker.exits.awaitStopped(record.id, signal);
  await takeAway(worker, record, signal);
}

async function prepareFiles(
  worker: Worker,
  record: ContainerRecord,
  options: {
    readonly pod: PodUserNamespace | undefined;
    readonly sandbox: PodSandboxConfig | undefined;
    readonly facts: HostFacts;
    readonly rollback: Rollback;
  },
): Promise<void> {
  const { pod } = options;
  const places = placesOf(worker, record.id);
  await Promise.all([
    mkdir(places.upper, { mode: 0o755 }),
    mkdir(places.work, { mode: 0o700 }),
    mkdir(places.persist, { mode: 0o700 }),
    mkdir(places.rootfs, { recursive: true, mode: 0o700 }),
    prepareLog(record, options.rollback),
  ]);
  const overlay = {
    target: places.rootfs,
    layersDirectory: record.layersDir,
    layerNames: record.layerNames,
    upper: places.upper,
    work: places.work,
    context: fileContext(worker, record, { sandbox: options.sandbox, host: options.facts }),
  };
  if (pod !== undefined) {
    const { uid, gid } = pod.root;
    await Promise.all([chown(places.upper, uid, gid), chown(places.work, uid, gid)]);
  }
  await worker.service.metrics.timed('mount', 'overlay', async () => {
    if (pod === undefined) mountOverlay(overlay);
    else mountIdmappedOverlay(overlay, { userNamespace: pod.path });
  });
}
