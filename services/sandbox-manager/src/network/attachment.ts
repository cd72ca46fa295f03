// Attaching a pod to its network and detaching it: the plugins of the list in order, each with
// the result of the one before; in reverse, with the cached result, to undo it (CNI specification
// 1.0, section 3).

import type { Logger } from '@cribus/chassis/log.ts';
import type { Metrics } from '@cribus/chassis/metrics.ts';
import type { Semaphore } from '@cribus/chassis/queue.ts';
import { Failure } from '@cribus/contracts/failure.ts';
import type { PodSandboxConfig } from '@cribus/contracts/gen/cri/v1/api.ts';
import type { SandboxNetwork } from '@cribus/contracts/gen/node/v1/records.ts';
import {
  type NetworkList,
  type PluginConfig,
  parseNetworkList,
} from '@cribus/contracts/network-list.ts';
import type { Clock } from '@cribus/host/clock.ts';
import { isNamespacePin } from '@cribus/host/namespaces.ts';
import type { CapabilityArgs } from './capabilities.ts';
import { findPlugin } from './network-source.ts';
import { runPlugin } from './plugin.ts';
import { requireAddresses } from './result.ts';

export interface AttachmentDeps {
  readonly binDirectories: readonly string[];
  /** For one plugin's run. */
  readonly timeoutMs: number;
  readonly clock: Clock;
  readonly metrics: Metrics;
  /** How many plugins may run at once. */
  readonly slots: Semaphore;
  /**
   * One place, for portmap's ADD: it looks for chains that all pods share and makes them if there are none,
   * so that of two at the first hostPorts of a host one fails with "File exists".
   */
  readonly portmapTurn: Semaphore;
}

export interface Attachment {
  readonly sandboxId: string;
  readonly netns: string;
  readonly config: PodSandboxConfig;
  readonly capabilities: CapabilityArgs;
  readonly log: Logger;
  readonly signal: AbortSignal;
}

export const POD_INTERFACE = 'eth0';

/** What must be recorded before ADD: the list, and that a DEL is owed from now on. */
export function networkIntent(list: NetworkList): SandboxNetwork {
  return {
    ips: [],
    interface: POD_INTERFACE,
    configJson: JSON.stringify(list),
    resultJson: '',
    addBegun: true,
  };
}

/** CNI ADD of the recorded list. Raises the first plugin's failure; a DEL is owed either way. */
export async function attach(
  deps: AttachmentDeps,
  attachment: Attachment,
  network: SandboxNetwork,
): Promise<SandboxNetwork> {
  const list = parseNetworkList(network.configJson);
  let result: unknown;
  for (const plugin of list.plugins.filter(wanted(attachment.capabilities))) {
    const path = findPlugin(plugin.type, deps.binDirectories);
    if (path === undefined) {
      throw new Failure(
        'unavailable',
        `sandbox ${attachment.sandboxId}: no such plugin in ${deps.binDirectories.join(':')}`,
        { stage: `CNI ADD (${plugin.type})` },
      );
    }
    // A plugin that prints nothing passes on what it was given.
    result =
      (await callPlugin(deps, attachment, { command: 'ADD', path, list, plugin, result })) ??
      result;
  }
  const where = { network: list.name, sandboxId: attachment.sandboxId };
  return {
    ...network,
    ips: requireAddresses(result, where),
    resultJson: JSON.stringify(result),
  };
}

/**
 * CNI DEL of the recorded list, also after half an ADD. Every plugin gets its turn, then the first
 * failure is raised. A plugin whose binary is gone is skipped with a warning: it will not come back
 * by waiting, and its pod must still be able to end.
 */
export async function detach(
  deps: AttachmentDeps,
  attachment: Attachment,
  network: SandboxNetwork,
): Promise<void> {
  const list = parseNetworkList(network.configJson);
  const netns = isNamespacePin(attachment.netns) ? attachment.netns : '';
  const result: unknown = network.resultJson === '' ? undefined : JSON.parse(network.resultJson);
  const failures: unknown[] = [];
  for (const plugin of list.plugins.filter(wanted(attachment.capabilities)).reverse()) {
    const path = findPlugin(plugin.type, deps.binDirectories);
    if (path === undefined) {
      const fields = { pod_sandbox_id: attachment.sandboxId, plugin: plugin.type };
      attachment.log.warn(fields, 'CNI DEL skipped: the plugin is not installed any more');
      continue;
    }
    const call = { command: 'DEL', path, list, plugin, result } as const;
    try {
      await callPlugin(deps, { ...attachment, netns }, call);
    } catch (error) {
      failures.push(error);
      if (attachment.signal.aborted) break;
    }
  }
  if (failures.length > 0) throw failures[0];
}

/**
 * Plugins of the CNI project that only pass the result on when the pod wants nothing of them and
 * their configuration sets nothing either: a process of 10 to 30 ms saved at ADD and at DEL.
 */
const IDLE_WITHOUT: Readonly<Record<string, { capability: string; settings: readonly string[] }>> =
  {
    portmap: { capability: 'portMappings', settings: [] },
    bandwidth: { capability: 'bandwidth', settings: ['ingressRate', 'egressRate'] },
  };

/** False for a plugin that would do nothing; the same at DEL as at ADD, as the pod is the same. */
export function wanted(capabilities: CapabilityArgs): (plugin: PluginConfig) => boolean {
  return (plugin) => {
    const idle = IDLE_WITHOUT[plugin.type];
    if (idle === undefined || capabilities[idle.capability] !== undefined) return true;
    return idle.settings.some((name) => plugin[name] !== undefined);
  };
}

interface PluginCall {
  readonly command: 'ADD' | 'DEL';
  readonly path: string;
  readonly list: NetworkList;
  readonly plugin: PluginConfig;
  /** The previous plugin's result at ADD, the cached one at DEL. */
  readonly result: unknown;
}

function callPlugin(
  deps: AttachmentDeps,
  attachment: Attachment,
  call: PluginCall,
): Promise<unknown> {
  const { command, plugin } = call;
  const { signal } = attachment;
  const run = () =>
    deps.slots.run(
      () =>
        deps.metrics.timed('cni', `${command.toLowerCase()} ${plugin.type}`, () =>
          runPlugin({
            command,
            path: call.path,
            type: plugin.type,
            config: pluginInput(call, attachment.capabilities),
            containerId: attachment.sandboxId,
            netns: attachment.netns,
            interfaceName: POD_INTERFACE,
            args: cniArgs(attachment.sandboxId, attachment.config),
            binDirectories: deps.binDirectories,
            timeoutMs: deps.timeoutMs,
            clock: deps.clock,
            signal,
          }),
        ),
      signal,
    );
  return command === 'ADD' && plugin.type === 'portmap' ? deps.portmapTurn.run(run, signal) : run();
}

/**
 * The plugin's part of the list with the list's name and version, the previous result, and in
 * `runtimeConfig` those capability arguments that it declares.
 */
export function pluginInput(
  call: Pick<PluginCall, 'list' | 'plugin' | 'result'>,
  capabilities: CapabilityArgs,
): object {
  const { capabilities: declared, ...own } = call.plugin;
  const runtimeConfig = Object.fromEntries(
    Object.entries(capabilities).filter(([name]) => declared?.[name] === true),
  );
  return {
    ...own,
    name: call.list.name,
    cniVersion: call.list.cniVersion,
    ...(Object.keys(runtimeConfig).length > 0 ? { runtimeConfig } : {}),
    ...(call.result === undefined ? {} : { prevResult: call.result }),
  };
}

/** CNI_ARGS as Kubernetes' networks know them. A value that the notation can't hold is left out. */
export function cniArgs(sandboxId: string, config: PodSandboxConfig): string {
  const pairs = [
    ['IgnoreUnknown', '1'],
    ['K8S_POD_NAMESPACE', config.metadata?.namespace ?? ''],
    ['K8S_POD_NAME', config.metadata?.name ?? ''],
    ['K8S_POD_INFRA_CONTAINER_ID', sandboxId],
    ['K8S_POD_UID', config.metadata?.uid ?? ''],
  ] as const;
  return pairs
    .filter(([, value]) => !/[;=\0]/.test(value))
    .map(([name, value]) => `${name}=${value}`)
    .join(';');
}
