// One handler of a family becomes an owner on the bus: lock, probe, records, adoption, verbs.

import { mkdir } from 'node:fs/promises';
import { createOwner, type Owner, type VerbTable } from '@cribus/chassis/owner.ts';
import type { Service } from '@cribus/chassis/service.ts';
import { ContainerPhase, type OwnerStatus } from '@cribus/contracts/gen/node/v1/records.ts';
import { handlerPaths } from '@cribus/contracts/paths.ts';
import { subjectToken } from '@cribus/contracts/subjects.ts';
import { lock, tryLock } from '@cribus/host/files.ts';
import { unmountTree } from '@cribus/host/mounts.ts';
import { adoptOrphans } from '@cribus/host/reap.ts';
import type { HostFacts } from '@cribus/oci/spec-input.ts';
import { adoptContainers, hasLive } from './adoption.ts';
import { attach } from './attach.ts';
import { checkpointContainer } from './checkpoint-container.ts';
import { createContainer } from './create-container.ts';
import { createWorker, type OpenedWorker } from './create-worker.ts';
import { describeObject } from './describe.ts';
import type { DriverProbe, RuntimeDriver } from './driver.ts';
import { exec } from './exec.ts';
import { execSync } from './exec-sync.ts';
import { readHostFacts } from './host-facts.ts';
import { hostLacks } from './host-lacks.ts';
import { phaseName } from './phases.ts';
import { portForward } from './port-forward.ts';
import { removeContainer } from './remove-container.ts';
import { reopenContainerLog } from './reopen-container-log.ts';
import { sampleContainers } from './sample-containers.ts';
import { startContainer } from './start-container.ts';
import { startSandbox } from './start-sandbox.ts';
import { stopContainer } from './stop-container.ts';
import { removeSandbox, stopSandbox } from './stop-sandbox.ts';
import { updateContainerResources } from './update-container-resources.ts';
import type { Worker } from './worker.ts';

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
  adoptOrphans();
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
    // runsc leaves a mount in its root; while a container lives it is in use.
    if (!hasLive(worker)) unmountTree(worker.paths.engineRoot);
  });
  const owner = serve(worker);
  await owner.serve();
  return owner;
}

function factsOf({ cgroups, driver, service }: Worker): HostFacts {
  return readHostFacts({ cgroups, driver, cgroupDriver: service.config.cgroups.driver });
}

/** The verbs of a runtime worker; a missing one does not compile. */
export function runtimeVerbs(worker: Worker): VerbTable<'runtime'> {
  let facts: HostFacts | undefined;
  const hostFacts = () => {
    facts ??= factsOf(worker);
    return facts;
  };
  return {
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
    exec: exec(worker),
    attach: attach(worker),
    'port-forward': portForward(worker),
    'update-container-resources': updateContainerResources(worker, hostFacts),
    'checkpoint-container': checkpointContainer(worker),
    'sample-containers': sampleContainers(worker),
  };
}

function serve(worker: OpenedWorker): Owner {
  reportStates(worker);
  const lacks = hostLacks(factsOf(worker));
  return createOwner({
    service: worker.service,
    kind: 'runtime',
    name: worker.owner,
    epoch: worker.epoch,
    directory: worker.paths.directory,
    stores: [worker.store],
    describe: () => describeOwner(worker, lacks),
    onAcknowledged: (operationId) => acknowledge(worker, operationId),
    verbs: runtimeVerbs(worker),
  });
}

/** Remembered in memory only: after a restart the ten minutes of the record decide. */
function acknowledge(worker: Worker, operationId: string): void {
  const record = worker.store.all().find((each) => each.operation?.operationId === operationId);
  if (record?.operation !== undefined) record.operation.acknowledged = true;
}

function describeOwner(worker: Worker, lacks: readonly string[]): Partial<OwnerStatus> {
  const { driver } = worker;
  return {
    warnings: [
      ...lacks,
      ...driver.warnings,
      ...(driver.unavailable === undefined ? [] : [driver.unavailable]),
    ],
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
    'Containers by handler and state.',
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
