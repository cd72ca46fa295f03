// The verbose half of a status: what the host has of a container or of a sandbox's process.

import { join } from 'node:path';
import type { VerbHandler } from '@cribus/chassis/owner.ts';
import { Failure } from '@cribus/contracts/failure.ts';
import { ContainerConfig } from '@cribus/contracts/gen/cri/v1/api.ts';
import { readFileIfExists } from '@cribus/host/files.ts';
import { placesOf, type Worker } from './worker.ts';

/** One key, `info`, with a JSON text, as containerd's verbose ContainerStatus has it. */
export function describeObject(worker: Worker): VerbHandler<'describe'> {
  return async (request) => {
    const record = worker.store.get(request.id);
    if (record === undefined) throw new Failure('not_found', `${request.id} does not exist`);
    const places = placesOf(worker, record.id);
    const spec = await readFileIfExists(join(places.bundle, 'config.json'));
    const info = {
      sandboxID: record.sandboxId,
      pid: record.process?.pid ?? 0,
      removing: false,
      snapshotKey: record.id,
      snapshotter: 'overlayfs',
      runtimeType: worker.driver.family,
      runtimeEngine: worker.driver.enginePath,
      runtimeEngineVersion: worker.driver.engineVersion,
      monitorPid: record.monitor?.pid ?? 0,
      cgroupPath: record.cgroupPath,
      bundle: places.bundle,
      rootfs: places.rootfs,
      config: record.config === undefined ? {} : ContainerConfig.toJSON(record.config),
      runtimeSpec: spec === undefined ? null : (JSON.parse(spec.toString('utf8')) as object),
    };
    return { info: { info: JSON.stringify(info) } };
  };
}
