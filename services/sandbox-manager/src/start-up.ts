// What a start finds on disk and on the host, and what it does about it: adopts what lives, undoes
// what was half made, finishes what was half ended, sweeps what has no record.

import { join } from 'node:path';
import { SandboxPhase, SandboxRecord } from '@cribus/contracts/gen/node/v1/records.ts';
import { runtimeOwner } from '@cribus/contracts/subjects.ts';
import {
  listDirectory,
  readFileIfExists,
  removeTree,
  writeFileAtomic,
} from '@cribus/host/files.ts';
import { unmountTree } from '@cribus/host/mounts.ts';
import { isNamespacePin } from '@cribus/host/namespaces.ts';
import { bootId, isAlive } from '@cribus/host/processes.ts';
import { networkIntent } from './network/attachment.ts';
import { endOrphanedPlugins } from './network/orphans.ts';
import { backgroundCaller, type SandboxDeps } from './sandbox-deps.ts';
import { updateSandbox } from './sandbox-update.ts';
import { SANDBOX_FORMAT } from './set-up.ts';
import { detached, detachNetwork } from './tear-down.ts';

/** Killed processes end at once, or hang in the kernel. */
const ORPHANS_BUDGET_MS = 2_000;

/** What a record's sandbox needs at start. */
export type Repair =
  | { readonly kind: 'adopt' }
  /** Half made, or its removal was begun: take it away. */
  | { readonly kind: 'remove' }
  | { readonly kind: 'stop' }
  /** It can't live any more: mark it, and free its address. */
  | { readonly kind: 'mark'; readonly reason: string };

export interface FoundHost {
  readonly rebooted: boolean;
  readonly isPin: (path: string) => boolean;
  readonly processAlive: (process: NonNullable<SandboxRecord['process']>) => boolean;
}

/** Decides from a record and the host; no effects. */
export function planRepair(record: SandboxRecord, host: FoundHost): Repair {
  switch (record.phase) {
    case SandboxPhase.CREATING:
    case SandboxPhase.REMOVING:
      return { kind: 'remove' };
    case SandboxPhase.STOPPING:
      return { kind: 'stop' };
    case SandboxPhase.NOTREADY:
      return { kind: 'adopt' };
    case SandboxPhase.READY: {
      if (host.rebooted) return { kind: 'mark', reason: 'the node was restarted' };
      const lost = Object.entries(record.namespaces ?? {})
        .filter(([, path]) => path !== '' && !host.isPin(path))
        .map(([name]) => name);
      if (lost.length > 0) {
        return { kind: 'mark', reason: `its namespaces are gone: ${lost.join(', ')}` };
      }
      if (record.process !== undefined && !host.processAlive(record.process)) {
        return { kind: 'mark', reason: 'its process ended' };
      }
      return { kind: 'adopt' };
    }
    default:
      return record.phase satisfies never;
  }
}

/** Brings every loaded record to a state that can be served; the resumption does the rest. */
export async function repairSandboxes(
  deps: SandboxDeps,
  options: { readonly rebooted: boolean },
): Promise<void> {
  const host: FoundHost = { ...options, isPin: isNamespacePin, processAlive: isAlive };
  for (const record of deps.store.all()) {
    const repair = planRepair(record, host);
    if (repair.kind === 'adopt') continue;
    const fields = { pod_sandbox_id: record.id, repair: repair.kind, phase: record.phase };
    deps.service.log.info(fields, 'a sandbox is not as its record says, or not finished');
    if (repair.kind === 'mark') {
      const { reason } = repair;
      const change = () => ({ phase: SandboxPhase.NOTREADY, reason });
      await updateSandbox(deps, { id: record.id, change });
    } else if (repair.kind === 'remove' && record.phase !== SandboxPhase.REMOVING) {
      const signal = deps.service.clock.timeout(ORPHANS_BUDGET_MS);
      await endOrphanedPlugins(record.id, signal).catch((error: unknown) => {
        deps.service.log.warn({ ...fields, error }, 'a network plugin runs on without a manager');
      });
      const reason = 'the sandbox manager ended while it was made';
      const change = () => ({ phase: SandboxPhase.REMOVING, reason });
      await updateSandbox(deps, { id: record.id, change });
    }
  }
}

/** CNI DEL for sandboxes that no longer live, so that their addresses are free. */
export async function freeAddresses(deps: SandboxDeps): Promise<void> {
  for (const { id, phase } of deps.store.all()) {
    if (phase !== SandboxPhase.NOTREADY) continue;
    await deps.locks.run(id, async () => {
      const record = deps.store.get(id);
      if (record?.phase !== SandboxPhase.NOTREADY || !record.network?.addBegun) return;
      if (isNamespacePin(record.namespaces?.net ?? '')) return;
      const signal = deps.service.stopping;
      const caller = backgroundCaller(deps.service, { requestId: `start-up.${id}`, signal });
      try {
        await detachNetwork(deps, caller, record);
        await updateSandbox(deps, { id, change: detached });
      } catch (error) {
        // StopPodSandbox will try again.
        caller.log.warn({ pod_sandbox_id: id, error }, 'the address of a lost sandbox is not free');
      }
    });
  }
}

/** True when the node was restarted since `rememberBoot`. */
export async function wasRebooted(directory: string): Promise<boolean> {
  const before = (await readFileIfExists(join(directory, 'boot-id')))?.toString('utf8').trim();
  return before !== undefined && before !== bootId();
}

/** To be called when everything of an earlier boot is marked. */
export async function rememberBoot(directory: string): Promise<void> {
  const file = join(directory, 'boot-id');
  const before = (await readFileIfExists(file))?.toString('utf8').trim();
  if (before !== bootId()) await writeFileAtomic(file, bootId(), { durable: true });
}

/** Removes pins, mounts and directories that belong to no record. `kept`: ids to leave alone. */
export async function sweepStrays(deps: SandboxDeps, kept: ReadonlySet<string>): Promise<void> {
  const { run, state } = deps.service.config.roots;
  const isStray = (id: string) => deps.store.get(id) === undefined && !kept.has(id);
  for (const root of [run, state]) {
    const directory = join(root, 'sandboxes');
    for (const id of (await listDirectory(directory)).filter(isStray)) {
      deps.service.log.info({ path: join(directory, id) }, 'swept what belongs to no sandbox');
      unmountTree(join(directory, id));
      await removeTree(join(directory, id));
    }
  }
}

/**
 * A sandbox whose record can't be read: nobody can list it any more, so its containers end and what
 * it held is released, with the network as it is configured now. Its files stay for a person.
 */
export async function releaseCorrupt(deps: SandboxDeps, id: string): Promise<void> {
  const { service } = deps;
  const caller = backgroundCaller(service, {
    requestId: `start-up.${id}`,
    signal: service.stopping,
  });
  const remove = (handler: string) =>
    caller.ask('remove-sandbox', { podSandboxId: id }, { owner: runtimeOwner(handler) });
  try {
    // A handler whose worker does not run here has no containers of it either.
    await Promise.allSettled(Object.keys(service.config.runtimes.handlers).map(remove));
    const network = networkIntent(deps.network.current().list);
    const record = { format: SANDBOX_FORMAT, id, config: {}, network };
    await detachNetwork(deps, caller, SandboxRecord.fromPartial(record));
    const pins = join(service.config.roots.run, 'sandboxes', id);
    unmountTree(pins);
    await removeTree(pins);
  } catch (error) {
    caller.log.error({ pod_sandbox_id: id, error }, 'a sandbox without a record is not released');
  }
}
