// Taking a sandbox apart. Each piece is idempotent: it may be there, half there, or gone.

import { rmdirSync, rmSync } from 'node:fs';
import { SandboxPhase, type SandboxRecord } from '@cribus/contracts/gen/node/v1/records.ts';
import { isErrno } from '@cribus/host/errno.ts';
import { removeTree } from '@cribus/host/files.ts';
import { unmount, unmountTree } from '@cribus/host/mounts.ts';
import { removeNamespacePin } from '@cribus/host/namespaces.ts';
import { detach } from './network/attachment.ts';
import { capabilityArgs } from './network/capabilities.ts';
import { cgroupsAbove, podCgroup } from './pod-cgroup.ts';
import { podPaths } from './pod-files.ts';
import { askWorker, type Caller, type SandboxDeps } from './sandbox-deps.ts';
import { updateSandbox } from './sandbox-update.ts';

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
  const paths = podPaths(deps.service.config.roots, record.id);
  const { net, ipc, uts, user } = paths;
  for (const pin of [net, ipc, uts, user]) removeNamespacePin(pin);
  unmount(paths.shm);
  if (removedEmpty(paths.shm) && removedEmpty(paths.pins)) return;
  // Something of somebody else's is there; looking for it reads every mount of the host.
  unmountTree(paths.pins);
  await removeTree(paths.pins);
}

/** With a sandbox's process it is the cgroup of that, which its worker removes. */
export function removeMetricsCgroup(deps: SandboxDeps, { metricsCgroup }: SandboxRecord): void {
  if (metricsCgroup !== '') deps.cgroups.removeEmpty(metricsCgroup);
}

/** Everything but the record's own file, which goes last; then the directory with it. */
export async function removePodDirectory(
  deps: SandboxDeps,
  record: { readonly id: string },
): Promise<void> {
  const paths = podPaths(deps.service.config.roots, record.id);
  rmSync(paths.resolvConf, { force: true });
  rmSync(paths.hostname, { force: true });
  if (deps.store.get(record.id) !== undefined || removedEmpty(paths.directory)) return;
  await removeTree(paths.directory);
}

/** True when there is no such directory any more; false when it holds something. */
function removedEmpty(directory: string): boolean {
  try {
    rmdirSync(directory);
    return true;
  } catch (error) {
    if (isErrno(error, 'ENOENT')) return true;
    if (isErrno(error, 'ENOTEMPTY', 'EBUSY')) return false;
    throw error;
  }
}

/**
 * Removes the pod's cgroup if we made it, and those above it that we made. Where another sandbox is
 * in one of them, that sandbox becomes its owner.
 */
export async function removeCgroup(
  deps: SandboxDeps,
  caller: Caller,
  record: SandboxRecord,
): Promise<void> {
  const cgroup = cgroupOf(deps, record);
  if (cgroup === undefined) return;
  const { cgroupCreated, cgroupCreatedFrom } = record;
  const others = deps.store.all().filter(({ id }) => id !== record.id);
  const inherit = (heir: SandboxRecord, fields: Partial<SandboxRecord>) =>
    updateSandbox(deps, { id: heir.id, change: () => fields, changed: caller.changed });
  const heir = others.find((other) => cgroupOf(deps, other) === cgroup);
  if (heir !== undefined) {
    if (cgroupCreated) await inherit(heir, { cgroupCreated, cgroupCreatedFrom });
    return;
  }
  if (cgroupCreated) deps.cgroups.remove(cgroup);
  const ours = (above: string) => cgroupCreatedFrom !== '' && above.startsWith(cgroupCreatedFrom);
  for (const above of cgroupsAbove(cgroup).filter(ours)) {
    const inside = others.find((other) => cgroupOf(deps, other)?.startsWith(`${above}/`));
    if (inside !== undefined) await inherit(inside, { cgroupCreatedFrom });
    if (inside !== undefined || !deps.cgroups.removeEmpty(above)) return;
  }
}

function cgroupOf(deps: SandboxDeps, record: SandboxRecord): string | undefined {
  const { driver } = deps.service.config.cgroups;
  return podCgroup(record.config?.linux?.cgroupParent ?? '', driver);
}

/** A key among those of sandboxes, whose ids are hexadecimal. */
const CGROUP_HEIRS = 'cgroup heirs';

/**
 * Stops a sandbox: its worker kills the containers while the network is detached, then the
 * namespaces go. Leaves it NOTREADY, or REMOVING where that is what the stop is for. Raises
 * unavailable when the worker is down, and a plugin's failure; what was released stays released, a
 * retry goes on (resumption.ts has them in growing distances), and the record says what failed.
 * The caller holds the sandbox's lock.
 */
export async function stopSandbox(
  deps: SandboxDeps,
  caller: Caller,
  options: { readonly id: string; readonly phase: 'stopping' | 'removing' },
): Promise<void> {
  const { id } = options;
  const { changed } = caller;
  const removing = options.phase === 'removing';
  const begin = removing
    ? { phase: SandboxPhase.REMOVING, reason: 'being removed' }
    : { phase: SandboxPhase.STOPPING, reason: 'being stopped' };
  const record = await updateSandbox(deps, {
    id,
    changed,
    change: ({ phase }) => (phase === begin.phase ? undefined : begin),
  });
  if (record === undefined) return;
  const [worker, network] = await Promise.allSettled([
    askWorker(caller, 'stop-sandbox', { record, request: { podSandboxId: id } }),
    detachNetwork(deps, caller, record),
  ]);
  const failures = [worker, network].flatMap((end) =>
    end.status === 'rejected' ? [errorText(end.reason)] : [],
  );
  const done = failures.length === 0;
  if (done) {
    removeMetricsCgroup(deps, record);
    await removePins(deps, record);
  }
  await updateSandbox(deps, {
    id,
    changed,
    change: (current) => ({
      ...(network.status === 'fulfilled' ? detached(current) : {}),
      ...(done
        ? { phase: removing ? begin.phase : SandboxPhase.NOTREADY, reason: STOPPED }
        : { reason: `${begin.reason}, and tried again after: ${failures.join('; ')}` }),
    }),
  });
  if (worker.status === 'rejected') throw worker.reason;
  if (network.status === 'rejected') throw network.reason;
}

function errorText(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

/** A DEL is not owed any more; the addresses stay for a person to see. */
export function detached(record: SandboxRecord): Pick<SandboxRecord, 'network'> {
  const { network } = record;
  return { network: network === undefined ? undefined : { ...network, addBegun: false } };
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
export async function removeSandbox(deps: SandboxDeps, caller: Caller, id: string): Promise<void> {
  const { changed } = caller;
  const found = deps.store.get(id);
  if (found === undefined) return;
  if (isStopped(found)) {
    await updateSandbox(deps, { id, changed, change: () => ({ phase: SandboxPhase.REMOVING }) });
  } else {
    await stopSandbox(deps, caller, { id, phase: 'removing' });
  }
  await askWorker(caller, 'remove-sandbox', { record: found, request: { podSandboxId: id } });
  removeMetricsCgroup(deps, found);
  await removePins(deps, found);
  // One sandbox at a time: an heir of a cgroup must not be on its own last steps.
  await deps.updates.run(CGROUP_HEIRS, async () => {
    // Read again: meanwhile it may have inherited its cgroup.
    await removeCgroup(deps, caller, deps.store.get(id) ?? found);
    await removePodDirectory(deps, found);
    await deps.store.remove(id, { changed });
    await removePodDirectory(deps, found);
  });
}
