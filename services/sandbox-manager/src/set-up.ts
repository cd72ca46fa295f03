// Making a sandbox: every step registers its undo first, and what does not depend on each other
// runs at the same time.

import { mkdirSync, writeFileSync } from 'node:fs';
import { hostname as hostHostname } from 'node:os';
import { basename, dirname } from 'node:path';
import { type Rollback, withRollback } from '@cribus/chassis/rollback.ts';
import { Failure } from '@cribus/contracts/failure.ts';
import {
  type SandboxNetwork,
  SandboxPhase,
  SandboxRecord,
} from '@cribus/contracts/gen/node/v1/records.ts';
import { createNamespaces, insideNetworkNamespace } from '@cribus/host/namespaces.ts';
import { createUserNamespace } from '@cribus/host/user-namespaces.ts';
import { hostFailure } from './host-failure.ts';
import { attach, networkIntent } from './network/attachment.ts';
import { capabilityArgs, hostPorts } from './network/capabilities.ts';
import { metricsCgroup, topmostAbsent } from './pod-cgroup.ts';
import { mountShm, nameInHosts, type Owner, podPaths, writePodFiles } from './pod-files.ts';
import { askWorker, type Caller, type SandboxDeps } from './sandbox-deps.ts';
import type { SandboxPlan } from './sandbox-plan.ts';
import { updateSandbox } from './sandbox-update.ts';
import { sysctlFile } from './sysctls.ts';
import {
  detachNetwork,
  removeCgroup,
  removeMetricsCgroup,
  removePins,
  removePodDirectory,
} from './tear-down.ts';

/** Of the record's layout. */
export const SANDBOX_FORMAT = 1;
const UNDO_TIMEOUT_MS = 30_000;

export interface Creation {
  readonly id: string;
  readonly plan: SandboxPlan;
  readonly operation: { readonly operationId: string; readonly requestHash: string };
}

/**
 * Creates the sandbox and answers its READY record. When a step fails everything is undone and its
 * failure raised; where an undo fails too, the sandbox stays listed, NOTREADY with the reason.
 */
export async function setUpSandbox(
  deps: SandboxDeps,
  caller: Caller,
  creation: Creation,
): Promise<SandboxRecord> {
  const { plan } = creation;
  const draft = firstRecord(deps, creation);
  const undone: string[] = [];
  const onUndoFailed = (step: string, error: unknown) => undone.push(`${step}: ${message(error)}`);
  const options = { log: caller.log, undoTimeoutMs: UNDO_TIMEOUT_MS, onUndoFailed };
  return withRollback(options, async (rollback) => {
    let failure: unknown;
    rollback.add('remove the record', () =>
      forget(deps, caller, { id: draft.id, undone, failure }),
    );
    try {
      const record = await makeHostParts(deps, { caller, rollback, plan, draft });
      const network = await attachNetwork(deps, { caller, rollback, plan, record });
      return await startAndFinish(deps, { caller, rollback, record: { ...record, network } });
    } catch (error) {
      failure = hostFailure(error, { stage: 'sandbox set-up', sandboxId: draft.id });
      throw failure;
    }
  });
}

function firstRecord(deps: SandboxDeps, { id, plan, operation }: Creation): SandboxRecord {
  const paths = podPaths(deps.service.config.roots, id);
  const { cgroup } = plan;
  const cgroupCreated = cgroup !== undefined && deps.cgroups.isAbsent(cgroup);
  const cgroupCreatedFrom = cgroup === undefined ? '' : topmostAbsent(deps.cgroups, cgroup);
  const shown = deps.service.config.kubelet.cadvisor_socket !== '';
  const parent = plan.config.linux?.cgroupParent ?? '';
  return SandboxRecord.fromPartial({
    format: SANDBOX_FORMAT,
    id,
    handler: plan.handler,
    requestedHandler: plan.requestedHandler,
    config: plan.config,
    phase: SandboxPhase.CREATING,
    createdAtNs: deps.service.clock.nowNs(),
    namespaces: {
      net: plan.hostNetwork ? '' : paths.net,
      ipc: plan.hostIpc ? '' : paths.ipc,
      uts: plan.hostNetwork ? '' : paths.uts,
      user: plan.userNamespace === undefined ? '' : paths.user,
    },
    network: plan.hostNetwork ? {} : networkIntent(deps.network.current().list),
    directory: paths.directory,
    cgroupCreated,
    cgroupCreatedFrom,
    metricsCgroup: shown ? metricsCgroup(id, { parent, hostNetwork: plan.hostNetwork }) : '',
    operation: { ...operation, verb: 'run-pod-sandbox' },
  });
}

interface Step {
  readonly caller: Caller;
  readonly rollback: Rollback;
  readonly plan: SandboxPlan;
}

/**
 * The record is on disk before anything that outlives us without a trace; pins and directories
 * need not wait for it, as what has no record is swept at start.
 */
async function makeHostParts(
  deps: SandboxDeps,
  { caller, rollback, plan, draft }: Step & { readonly draft: SandboxRecord },
): Promise<SandboxRecord> {
  const paths = podPaths(deps.service.config.roots, draft.id);
  const hostname = plan.hostNetwork || plan.hostname === '' ? hostHostname() : plan.hostname;
  rollback.add('remove the directory', () => removePodDirectory(deps, draft));
  mkdirSync(paths.directory, { recursive: true, mode: 0o700 });
  rollback.add('remove namespaces and shm', () => removePins(deps, draft));
  const saved = deps.store.put(draft, { durable: true, changed: caller.changed });
  const files = writePodFiles(paths, {
    dns: plan.config.dnsConfig,
    hostname,
    hostNetwork: plan.hostNetwork,
    logDirectory: plan.config.logDirectory,
    owner: podRoot(plan),
  });
  const { signal } = caller;
  const pinned = pinAndMount(draft, { plan, hostname, paths, signal });
  await allDone([saved, files, pinned]);
  const record = await saved;
  if (plan.cgroup !== undefined && record.cgroupCreated) {
    const { cgroup } = plan;
    rollback.add('remove the cgroup', () => removeCgroup(deps, caller, record));
    deps.cgroups.create(cgroup);
  }
  return record;
}

/** Who is root in the pod, as the host counts. */
function podRoot({ userNamespace }: SandboxPlan): Owner | undefined {
  const [uids] = userNamespace?.uids ?? [];
  const [gids] = userNamespace?.gids ?? [];
  return uids && gids && { uid: uids.hostId, gid: gids.hostId };
}

/** Two milliseconds of system calls; async only so that a failure waits for the others' end. */
async function pinAndMount(
  record: SandboxRecord,
  options: {
    readonly plan: SandboxPlan;
    readonly hostname: string;
    readonly paths: ReturnType<typeof podPaths>;
    readonly signal: AbortSignal;
  },
): Promise<void> {
  const { plan, hostname, paths } = options;
  mkdirSync(plan.hostIpc ? paths.pins : paths.shm, { recursive: true, mode: 0o711 });
  if (!plan.hostIpc) mountShm(paths.shm, podRoot(plan));
  const { net = '', ipc = '', uts = '', user = '' } = record.namespaces ?? {};
  if (net === '' && ipc === '' && uts === '' && user === '') return;
  const namespaces = {
    pins: {
      ...(net === '' ? {} : { net }),
      ...(ipc === '' ? {} : { ipc }),
      ...(uts === '' ? {} : { uts }),
    },
    ...(uts === '' ? {} : { hostname }),
    sysctls: plan.sysctls.atCreation,
  };
  try {
    const mappings = plan.userNamespace;
    if (mappings === undefined) createNamespaces(namespaces);
    else {
      const pins = { ...namespaces.pins, user };
      await createUserNamespace({ ...namespaces, pins, mappings, signal: options.signal });
    }
  } catch (error) {
    // A sysctl that the kernel doesn't know, or a value that it refuses: the caller's mistake.
    const isSysctl = error instanceof Error && error.message.includes(': write sysctl ');
    const kind = isSysctl ? 'invalid_argument' : 'wrong_state';
    throw hostFailure(error, { stage: 'namespaces', sandboxId: record.id, kind });
  }
}

async function attachNetwork(
  deps: SandboxDeps,
  { caller, rollback, plan, record }: Step & { readonly record: SandboxRecord },
): Promise<SandboxNetwork | undefined> {
  const { network, namespaces } = record;
  if (network === undefined || !network.addBegun || namespaces === undefined) return network;
  const capabilities = capabilityArgs(plan.config, deps.podCidr.current());
  warnOfUnmappedPorts(caller, record);
  rollback.add('CNI DEL', (signal) => detachNetwork(deps, { ...caller, signal }, record));
  const attachment = {
    sandboxId: record.id,
    netns: namespaces.net,
    config: plan.config,
    capabilities,
    log: caller.log,
    signal: caller.signal,
  };
  const attached = await attach(deps.attachment, attachment, network);
  const paths = podPaths(deps.service.config.roots, record.id);
  await nameInHosts(paths, { hostname: plan.hostname, ips: attached.ips });
  const later = Object.entries(plan.sysctls.afterAttach);
  if (later.length > 0) setSysctlsInside(namespaces.net, later, record.id);
  return attached;
}

function setSysctlsInside(
  netns: string,
  sysctls: readonly (readonly [string, string])[],
  sandboxId: string,
): void {
  insideNetworkNamespace(netns, () => {
    for (const [name, value] of sysctls) {
      try {
        writeFileSync(sysctlFile(name), value);
      } catch (error) {
        throw new Failure('invalid_argument', `sandbox ${sandboxId}: ${name} = ${value}`, {
          stage: 'sysctl',
          cause: error,
        });
      }
    }
  });
}

function warnOfUnmappedPorts(caller: Caller, record: SandboxRecord): void {
  if (hostPorts(record.config?.portMappings ?? []).length === 0) return;
  if (/"portMappings":\s*true/.test(record.network?.configJson ?? '')) return;
  const fields = { pod_sandbox_id: record.id };
  caller.log.warn(fields, 'host ports are not mapped: no plugin of the network can do it');
}

async function startAndFinish(
  deps: SandboxDeps,
  step: Omit<Step, 'plan'> & { readonly record: SandboxRecord },
): Promise<SandboxRecord> {
  const { caller, rollback, record } = step;
  rollback.add('remove at the worker', async (signal) => {
    const request = { podSandboxId: record.id };
    await askWorker({ ...caller, signal }, 'remove-sandbox', { record, request, signal });
  });
  const { process } = await askWorker(caller, 'start-sandbox', {
    record,
    request: { sandbox: record },
  });
  const died = deps.earlyExits.get(record.id);
  if (died !== undefined) {
    throw new Failure('wrong_state', `sandbox ${record.id}: its process ended at once: ${died}`, {
      stage: 'start-sandbox',
    });
  }
  if (process === undefined) {
    rollback.add('remove the cgroup for metrics', () => removeMetricsCgroup(deps, record));
    makeMetricsCgroup(deps, caller, record);
  }
  const finishedAtNs = deps.service.clock.nowNs();
  const ready = await updateSandbox(deps, {
    id: record.id,
    changed: caller.changed,
    change: ({ operation }) => ({
      network: record.network,
      process,
      phase: SandboxPhase.READY,
      operation: operation === undefined ? undefined : { ...operation, finishedAtNs },
    }),
  });
  if (ready === undefined) throw new Error(`the record of sandbox ${record.id} went while locked`);
  return ready;
}

/** A pod runs without one too; where nobody made the pod's cgroup yet there is none either. */
function makeMetricsCgroup(deps: SandboxDeps, caller: Caller, record: SandboxRecord): void {
  const { id, metricsCgroup: cgroup } = record;
  if (cgroup === '') return;
  try {
    deps.cgroups.createBelow(dirname(cgroup), basename(cgroup));
  } catch (error) {
    caller.log.warn({ pod_sandbox_id: id, cgroup, error }, 'cAdvisor will not find its network');
  }
}

/** The last undo: drops the record, or keeps it where something could not be undone. */
async function forget(
  deps: SandboxDeps,
  caller: Caller,
  end: { readonly id: string; readonly undone: readonly string[]; readonly failure: unknown },
): Promise<void> {
  const record = deps.store.get(end.id);
  if (record === undefined) return;
  const { changed } = caller;
  if (end.undone.length === 0) {
    await deps.store.remove(end.id, { changed });
    await removePodDirectory(deps, record);
    return;
  }
  const reason = `set-up failed (${message(end.failure)}) and was not undone: ${end.undone.join('; ')}`;
  const change = () => ({ phase: SandboxPhase.NOTREADY, reason });
  await updateSandbox(deps, { id: end.id, changed, change });
}

/** Waits for all of them, so that nothing still runs when an undo begins; then the first failure. */
async function allDone(works: readonly Promise<unknown>[]): Promise<void> {
  for (const outcome of await Promise.allSettled(works)) {
    if (outcome.status === 'rejected') throw outcome.reason;
  }
}

function message(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
