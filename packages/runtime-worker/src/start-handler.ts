// One handler of a family becomes an owner on the bus: lock, probe, records, adoption, verbs.

import { mkdir } from 'node:fs/promises';
import { createOwner, type Owner, openEpoch } from '@cribus/chassis/owner.ts';
import { createKeyedLock } from '@cribus/chassis/queue.ts';
import { createRecordStore } from '@cribus/chassis/records.ts';
import type { Service } from '@cribus/chassis/service.ts';
import { isFailure } from '@cribus/contracts/failure.ts';
import {
  ContainerPhase,
  ContainerRecord,
  type OwnerStatus,
} from '@cribus/contracts/gen/node/v1/records.ts';
import { containerPaths, handlerPaths } from '@cribus/contracts/paths.ts';
import {
  type OwnerName,
  runtimeOwner,
  SANDBOX_MANAGER,
  subjectToken,
} from '@cribus/contracts/subjects.ts';
import { detectCgroups } from '@cribus/host/cgroups.ts';
import { listDirectory, lock, tryLock } from '@cribus/host/files.ts';
import type { HostFacts } from '@cribus/oci/spec-input.ts';
import { adoptContainers } from './adoption.ts';
import { CONTAINER_RECORD_FORMAT, createContainer } from './create-container.ts';
import { describeObject } from './describe.ts';
import type { DriverProbe, RuntimeDriver } from './driver.ts';
import { createEngine } from './engine.ts';
import { execSync } from './exec-sync.ts';
import { createExits } from './exits.ts';
import { readHostFacts } from './host-facts.ts';
import { missingDriver } from './missing-driver.ts';
import { createChanges, phaseName } from './phases.ts';
import { removeContainer } from './remove-container.ts';
import { reopenContainerLog } from './reopen-container-log.ts';
import { createSessions } from './sessions.ts';
import { startContainer } from './start-container.ts';
import { startSandbox } from './start-sandbox.ts';
import { stopContainer } from './stop-container.ts';
import { removeSandbox, stopSandbox } from './stop-sandbox.ts';
import type { Worker } from './worker.ts';

/** A probe runs the engine a few times; gVisor's trials take some seconds. */
const PROBE_BUDGET_MS = 60_000;
const REPORT_RETRY_MS = 2_000;

/**
 * Serves every handler of a family that the configuration names. Each waits for its own lock, so
 * that a second process is a standby which takes over the moment the first one ends.
 */
export async function startFamily(
  service: Service,
  family: RuntimeDriver['family'],
  probe: DriverProbe,
): Promise<void> {
  const handlers = Object.entries(service.config.runtimes.handlers)
    .filter(([, handler]) => handler.family === family)
    .map(([name]) => name);
  const standby: string[] = [];
  await Promise.all(
    handlers.map(async (handler) => {
      const paths = handlerPaths(service.config.roots, subjectToken(handler));
      await mkdir(paths.directory, { recursive: true, mode: 0o700 });
      const held = tryLock(paths.lock);
      if (held !== undefined) {
        await startHandler(service, handler, { probe, held });
        return;
      }
      standby.push(handler);
      service.log.info({ handler }, 'another process serves this handler; waiting as its standby');
      service.background(`standby ${handler}`, takeOver(service, handler, probe));
    }),
  );
}

async function takeOver(service: Service, handler: string, probe: DriverProbe): Promise<void> {
  const paths = handlerPaths(service.config.roots, subjectToken(handler));
  try {
    const held = await lock(paths.lock, service.stopping);
    await startHandler(service, handler, { probe, held });
  } catch (error) {
    if (!service.stopping.aborted) throw error;
  }
}

export interface StartOptions {
  readonly probe: DriverProbe;
  /** The handler's lock, closed at the service's end. */
  readonly held: { close(): void };
}

/** Adopts and serves one handler; its lock must be held. */
export async function startHandler(
  service: Service,
  handler: string,
  options: StartOptions,
): Promise<Owner> {
  service.onStop(`unlock ${handler}`, () => options.held.close());
  const worker = await createWorker(service, handler, options.probe);
  await adoptContainers(worker);
  await worker.sessions.listen();
  worker.exits.begin();
  service.onStop(`close ${handler}`, async () => {
    worker.exits.close();
    await worker.sessions.close();
  });
  const owner = serve(worker);
  await owner.serve();
  service.onStop(`drain ${handler}`, () => owner.drain());
  return owner;
}

/** Everything of a handler but its place on the bus. */
async function createWorker(
  service: Service,
  handler: string,
  probe: DriverProbe,
): Promise<Worker & { readonly epoch: bigint }> {
  const token = subjectToken(handler);
  const paths = handlerPaths(service.config.roots, token);
  for (const directory of [paths.containers, paths.exits, paths.run, paths.engineRoot]) {
    await mkdir(directory, { recursive: true, mode: 0o700 });
  }
  const driver = await probeOrMissing(service, handler, probe);
  const epoch = await openEpoch(paths.directory);
  const owner = runtimeOwner(handler);
  const store = createRecordStore<ContainerRecord>({
    service,
    owner,
    epoch,
    kind: 'container',
    codec: ContainerRecord,
    format: CONTAINER_RECORD_FORMAT,
    fileOf: (id) => containerPaths(service.config.roots, token, id).record,
    listIds: () => listDirectory(paths.containers),
  });
  const cgroups = detectCgroups();
  const monitorsCgroup = `${service.config.cgroups.root}/monitors`;
  cgroups.create(monitorsCgroup);
  const exits = createExits(
    () => worker,
    (record) => {
      if (record.sandboxProcess) {
        service.background(`sandbox exit ${record.id}`, reportSandboxExit(service, record));
      }
    },
  );
  const worker: Worker & { readonly epoch: bigint } = {
    service,
    handler,
    owner,
    epoch,
    paths,
    driver,
    engine: createEngine({
      driver,
      root: paths.engineRoot,
      log: `${paths.run}/engine.log`,
      clock: service.clock,
      metrics: service.metrics,
    }),
    conmon: service.config.monitor.conmon,
    store,
    changes: createChanges(store, createKeyedLock()),
    cgroups,
    monitorsCgroup,
    lifecycle: createKeyedLock(),
    exits,
    sessions: createSessions(service, paths.sessionSocket),
    creations: new Map(),
    fenced: new Set(),
    released: new Set(),
    killTimes: new Map(),
  };
  return worker;
}

async function probeOrMissing(
  service: Service,
  handler: string,
  probe: DriverProbe,
): Promise<RuntimeDriver> {
  const config = service.config.runtimes.handlers[handler];
  if (config === undefined) throw new Error(`handler ${handler} is not configured`);
  const paths = handlerPaths(service.config.roots, subjectToken(handler));
  try {
    return await probe({
      handler,
      config,
      cgroupDriver: service.config.cgroups.driver,
      directory: paths.directory,
      runDirectory: paths.run,
      engineRoot: paths.engineRoot,
      clock: service.clock,
      log: service.log.child({ handler }),
      signal: service.clock.timeout(PROBE_BUDGET_MS),
    });
  } catch (error) {
    if (!isFailure(error)) throw error;
    service.log.warn({ handler, error: error.message }, 'this handler can create nothing');
    return missingDriver(config, error);
  }
}

function serve(worker: Worker & { readonly epoch: bigint }): Owner {
  const { service, driver } = worker;
  let facts: HostFacts | undefined;
  const hostFacts = () => {
    facts ??= readHostFacts({
      cgroups: worker.cgroups,
      cgroupDriver: service.config.cgroups.driver,
      driver,
    });
    return facts;
  };
  reportStates(worker);
  return createOwner({
    service,
    kind: 'runtime',
    name: worker.owner,
    epoch: worker.epoch,
    directory: worker.paths.directory,
    stores: [worker.store as never],
    describe: () => describeOwner(worker),
    onAcknowledged: (operationId) => acknowledge(worker, operationId),
    verbs: {
      describe: describeObject(worker),
      'start-sandbox': startSandbox(worker, hostFacts),
      'stop-sandbox': stopSandbox(worker),
      'remove-sandbox': removeSandbox(worker),
      'create-container': createContainer(worker, hostFacts),
      'start-container': startContainer(worker),
      'stop-container': stopContainer(worker),
      'remove-container': removeContainer(worker),
      'reopen-container-log': reopenContainerLog(worker),
      'exec-sync': execSync(worker),
    },
  });
}

/** Remembered in memory only: after a restart the ten minutes of the record decide. */
function acknowledge(worker: Worker, operationId: string): void {
  const record = worker.store.all().find((each) => each.operation?.operationId === operationId);
  if (record?.operation !== undefined) record.operation.acknowledged = true;
}

function describeOwner(worker: Worker): Partial<OwnerStatus> {
  const { driver } = worker;
  return {
    warnings:
      driver.unavailable === undefined
        ? [...driver.warnings]
        : [...driver.warnings, driver.unavailable],
    conditions: [
      {
        type: `Handler.${worker.handler}`,
        status: driver.unavailable === undefined,
        reason: driver.unavailable === undefined ? '' : 'EngineUnavailable',
        message: driver.unavailable ?? '',
      },
    ],
    handler: {
      name: worker.handler,
      family: driver.family,
      enginePath: driver.enginePath,
      engineVersion: driver.engineVersion,
      ...driver.features,
      details: { ...driver.details },
    },
  };
}

function reportStates(worker: Worker): void {
  worker.service.metrics.gauge(
    'cribus_containers',
    'Containers of this worker by handler and state.',
    ['handler', 'state'],
    (gauge) => {
      for (const phase of Object.values(ContainerPhase)) {
        const state = phaseName(phase).toLowerCase();
        const count = worker.store
          .all()
          .filter((record) => !record.sandboxProcess && record.phase === phase).length;
        gauge.set({ handler: worker.handler, state }, count);
      }
    },
  );
}

/** Told until it is heard: the sandbox is not ready any more. */
async function reportSandboxExit(service: Service, record: ContainerRecord): Promise<void> {
  const { bus, clock, stopping, log } = service;
  const owner: OwnerName = SANDBOX_MANAGER;
  while (!stopping.aborted) {
    try {
      await bus.ask(
        'report-sandbox-exit',
        {
          podSandboxId: record.sandboxId,
          reason: `the sandbox's process ended with code ${record.exitCode}`,
        },
        {
          owner,
          signal: stopping,
          requestId: `exit-${record.id}`,
          operationId: `${record.id}.exit`,
        },
      );
      return;
    } catch (error) {
      if (isFailure(error, 'not_found')) return;
      log.warn(
        { sandbox: record.sandboxId, error: String(error) },
        'a sandbox exit is not told yet',
      );
    }
    await clock.sleep(REPORT_RETRY_MS, stopping).catch(() => undefined);
  }
}
