// A bundle with a config.json becomes a created process under a monitor.

import { existsSync } from 'node:fs';
import { Failure } from '@cribus/contracts/failure.ts';
import type { ContainerRecord } from '@cribus/contracts/gen/node/v1/records.ts';
import { identify, type ProcessIdentity } from '@cribus/host/processes.ts';
import { startMonitor } from './monitor.ts';
import { placesOf, type Worker } from './worker.ts';

export interface CreatedProcess {
  readonly process: ProcessIdentity;
  readonly monitor: ProcessIdentity;
}

/** Starts conmon and the engine's create. Raises what the driver makes of the engine's words. */
export async function createByMonitor(
  worker: Worker,
  record: ContainerRecord,
  options: {
    readonly terminal: boolean;
    /** Further global arguments, as the driver wants for this spec. */
    readonly engineArgs: readonly string[];
    /** criu's images, to restore instead. */
    readonly restoreFrom?: string;
    readonly signal: AbortSignal;
  },
): Promise<CreatedProcess> {
  const places = placesOf(worker, record.id);
  const front = [...worker.engine.argv('create', []).slice(0, -1), ...options.engineArgs];
  const { monitor, outcome } = await worker.service.metrics.timed(
    'engine',
    `${worker.driver.family} create`,
    () =>
      startMonitor(
        {
          conmon: worker.conmon,
          id: record.id,
          name: record.config?.metadata?.name ?? 'sandbox',
          engine: record.sandboxProcess
            ? worker.engine.command
            : (worker.driver.relayingCreate ?? worker.engine.command),
          engineArgs: front,
          bundle: places.bundle,
          pidFile: places.pidFile,
          monitorPidFile: places.monitorPidFile,
          logPath: record.logPath,
          exits: worker.paths.exits,
          persist: places.persist,
          tty: options.terminal,
          stdin: record.config?.stdin === true,
          stdinOnce: record.config?.stdinOnce === true,
          ...(options.restoreFrom === undefined ? {} : { restoreFrom: options.restoreFrom }),
        },
        { cgroups: worker.cgroups, cgroup: worker.monitorsCgroup, signal: options.signal },
      ),
  );
  if (outcome.kind === 'failed') {
    const { enginePath } = worker.driver;
    if (!existsSync(enginePath)) {
      throw new Failure('unavailable', `${enginePath} is not there any more`, {
        stage: 'engine create',
      });
    }
    throw worker.driver.classify('create', { exitCode: undefined, output: outcome.message });
  }
  const process = identify(outcome.pid);
  if (process === undefined) {
    throw new Failure('wrong_state', `the process of ${record.id} ended while it was created`);
  }
  return { process, monitor };
}
