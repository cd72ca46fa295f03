// Taking a sandbox apart. Each piece is idempotent: it may be there, half there, or gone.

import { readdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { SandboxPhase, type SandboxRecord } from '@cribus/contracts/gen/node/v1/records.ts';
import { isErrno } from '@cribus/host/errno.ts';
import { removeTree } from '@cribus/host/files.ts';
import { unmountTree } from '@cribus/host/mounts.ts';
import { detach } from './network/attachment.ts';
import { capabilityArgs } from './network/capabilities.ts';
import { podCgroup } from './pod-cgroup.ts';
import { podPaths } from './pod-files.ts';
import { askWorker, type Caller, type SandboxDeps } from './sandbox-deps.ts';

/** The reason of a sandbox whose stop is complete: nothing of it is left to release. */
export const STOPPED = 'stopped';

/** CNI DEL, if one is owed. Raises the plugin's failure. */
export async function detachNetwork(
  deps: SandboxDeps,
  caller: Caller,
  record: SandboxRecord,
): Promise<void> {
  const { network, config } = record;
  if (network === undefined || !network.addBegun || config === undefined) return;
  const attachment = {
    sandboxId: record.id,
    netns: record.namespaces?.net ?? '',
    config,
    capabilities: capabilityArgs(config, deps.podCidr.current()),
    log: caller.log,
    signal: caller.signal,
  };
  await detach(deps.attachment, attachment, network);
}

/** Unmounts the pins and shm and removes their directory. */
export async function removePins(
  deps: SandboxDeps,
  record: { readonly id: string },
): Promise<void> {
  const { pins } = podPaths(deps.service.config.roots, record.id);
  unmountTree(pins);
  await removeTree(pins);
}

/** Everything but the record's own file, which goes last; then the directory if it is empty. */
export async function removePodDirectory(
  deps: SandboxDeps,
  record: { readonly id: string },
): Promise<void> {
  const { directory } = podPaths(deps.service.config.roots, record.id);
  if (deps.store.get(record.id) === undefined) {
    await removeTree(directory);
    return;
  }
  for (const name of await namesIn(directory)) {
    if (!name.startsWith('record.pb')) await rm(join(directory, name), { recursive: true });
  }
}

async function namesIn(directory: string): Promise<string[]> {
  try {
    return await readdir(directory);
  } catch (error) {
    if (!isErrno(error, 'ENOENT')) throw error;
    return [];
  }
}

/**
 * Removes the pod's cgroup if we made it. Where another sandbox still has the same one, that one
 * becomes its owner.
 */
export async function removeCgroup(
  deps: SandboxDeps,
  caller: Caller,
  record: SandboxRecord,
): Promise<void> {
  const cgroup = cgroupOf(deps, record);
  if (cgroup === undefined || !record.cgroupCreated) return;
  const heir = deps.store
    .all()
    .find((other) => other.id !== record.id && cgroupOf(deps, other) === cgroup);
  if (heir !== undefined) {
    await deps.store.put({ ...heir, cgroupCreated: true }, { changed: caller.changed });
    return;
  }
  deps.cgroups.remove(cgroup);
}

function cgroupOf(deps: SandboxDeps, record: SandboxRecord): string | undefined {
  const { driver } = deps.service.config.cgroups;
  return podCgroup(record.config?.linux?.cgroupParent ?? '', driver);
}

/**
 * Stops a sandbox: its worker kills the containers while the network is detached, then the
 * namespaces go. Answers the NOTREADY record (or the REMOVING one, which keeps its phase). Raises
 * unavailable when the worker is down; what was released stays released, and a retry goes on.
 * The caller holds the sandbox's lock.
 */
export async function stopSandbox(
  deps: SandboxDeps,
  caller: Caller,
  options: { readonly record: SandboxRecord; readonly phase: 'stopping' | 'removing' },
): Promise<SandboxRecord> {
  const { changed } = caller;
  const removing = options.phase === 'removing';
  const during = removing ? SandboxPhase.REMOVING : SandboxPhase.STOPPING;
  const begun = options.record.phase === during;
  const reason = removing ? 'being removed' : 'being stopped';
  let record = begun
    ? options.record
    : await deps.store.put({ ...options.record, phase: during, reason }, { changed });
  const request = { podSandboxId: record.id };
  const [worker, network] = await Promise.allSettled([
    askWorker(caller, 'stop-sandbox', { record, request }),
    detachNetwork(deps, caller, record),
  ]);
  if (network.status === 'fulfilled' && record.network?.addBegun) {
    record = { ...record, network: { ...record.network, addBegun: false } };
    if (worker.status === 'rejected') record = await deps.store.put(record, { changed });
  }
  if (worker.status === 'rejected') throw worker.reason;
  if (network.status === 'rejected') throw network.reason;
  await removePins(deps, record);
  const phase = removing ? SandboxPhase.REMOVING : SandboxPhase.NOTREADY;
  return deps.store.put({ ...record, phase, reason: STOPPED }, { changed });
}

/** True when a stop has nothing left to do. */
export function isStopped(record: SandboxRecord): boolean {
  const atRest = record.phase === SandboxPhase.NOTREADY || record.phase === SandboxPhase.REMOVING;
  return atRest && record.reason === STOPPED;
}

/**
 * Removes a sandbox and everything of it, stopping it first where that is still to do. The caller
 * holds the sandbox's lock. Raises as stopSandbox does.
 */
export async function removeSandbox(
  deps: SandboxDeps,
  caller: Caller,
  record: SandboxRecord,
): Promise<void> {
  const { changed } = caller;
  const stopped = isStopped(record)
    ? await deps.store.put({ ...record, phase: SandboxPhase.REMOVING }, { changed })
    : await stopSandbox(deps, caller, { record, phase: 'removing' });
  const request = { podSandboxId: record.id };
  await askWorker(caller, 'remove-sandbox', { record: stopped, request });
  await removeCgroup(deps, caller, stopped);
  await removePins(deps, stopped);
  await removePodDirectory(deps, stopped);
  await deps.store.remove(record.id, { changed });
  await removePodDirectory(deps, stopped);
}
