// Puts one handler's worker together: probe, directories, records, engine, locks and watches.

import { mkdir } from 'node:fs/promises';
import { availableParallelism } from 'node:os';
import { openEpoch } from '@cribus/chassis/owner.ts';
import { createKeyedLock } from '@cribus/chassis/queue.ts';
import { createRecordStore } from '@cribus/chassis/records.ts';
import type { Service } from '@cribus/chassis/service.ts';
import { isFailure } from '@cribus/contracts/failure.ts';
import { ContainerRecord } from '@cribus/contracts/gen/node/v1/records.ts';
import { containerPaths, handlerPaths } from '@cribus/contracts/paths.ts';
import { runtimeOwner, SANDBOX_MANAGER, subjectToken } from '@cribus/contracts/subjects.ts';
import { detectCgroups } from '@cribus/host/cgroups.ts';
import { listDirectory } from '@cribus/host/files.ts';
import { CONTAINER_RECORD_FORMAT } from './create-container.ts';
import type { DriverProbe, RuntimeDriver } from './driver.ts';
import { createEngine } from './engine.ts';
import { createExecStarts } from './exec-starts.ts';
import { createExits } from './exits.ts';
import { missingDriver } from './missing-driver.ts';
import { createChanges } from './phases.ts';
import { createSessions } from './sessions.ts';
import type { Worker } from './worker.ts';

/** A probe runs the engine a few times; gVisor's trials take some seconds. */
const PROBE_BUDGET_MS = 60_000;
const REPORT_RETRY_MS = 2_000;
/** Of a hundred probes that come at one moment; more engines at once only take each other's time. */
const EXEC_STARTS_PER_PROCESSOR = 2;
const EXEC_STARTS_MIN = 4;

/** A worker with the epoch that its store was opened with. */
export interface OpenedWorker extends Worker {
  readonly epoch: bigint;
}

/** Everything of a handler but its place on the bus. */
export async function createWorker(
  service: Service,
  handler: string,
  probe: DriverProbe,
): Promise<OpenedWorker> {
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
  const worker: OpenedWorker = {
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
      startLog: (id) => `${containerPaths(service.config.roots, token, id).bundle}/start.log`,
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
    execStarts: createExecStarts(
      Math.max(EXEC_STARTS_MIN, EXEC_STARTS_PER_PROCESSOR * availableParallelism()),
    ),
    creations: new Map(),
    fenced: new Set(),
    released: new Set(),
    watching: new Map(),
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

/** Told until it is heard: the sandbox is not ready any more. */
async function reportSandboxExit(service: Service, record: ContainerRecord): Promise<void> {
  const { bus, clock, stopping, log } = service;
  while (!stopping.aborted) {
    try {
      await bus.ask(
        'report-sandbox-exit',
        {
          podSandboxId: record.sandboxId,
          reason: `the sandbox's process ended with code ${record.exitCode} (${record.reason})`,
        },
        {
          owner: SANDBOX_MANAGER,
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
