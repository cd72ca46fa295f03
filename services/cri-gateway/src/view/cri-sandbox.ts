// A sandbox's record as CRI shows it. Labels and annotations go out exactly as they came in: the
// kubelet reads its pods back from them.

import {
  NamespaceMode,
  PodSandbox,
  PodSandboxNetworkStatus,
  PodSandboxState,
  PodSandboxStatus,
} from '@cribus/contracts/gen/cri/v1/api.ts';
import { SandboxPhase, type SandboxRecord } from '@cribus/contracts/gen/node/v1/records.ts';

/**
 * A sandbox that is still being made isn't shown: listed as NOTREADY it would make the kubelet start
 * another attempt instead of joining the running one.
 */
export function isSandboxShown(record: SandboxRecord): boolean {
  return record.phase !== SandboxPhase.CREATING;
}

export function sandboxState(record: SandboxRecord): PodSandboxState {
  return record.phase === SandboxPhase.READY
    ? PodSandboxState.SANDBOX_READY
    : PodSandboxState.SANDBOX_NOTREADY;
}

/** An item of ListPodSandbox. */
export function toPodSandbox(record: SandboxRecord): PodSandbox {
  return PodSandbox.fromPartial({
    id: record.id,
    ...(record.config?.metadata === undefined ? {} : { metadata: record.config.metadata }),
    state: sandboxState(record),
    createdAt: record.createdAtNs,
    labels: record.config?.labels ?? {},
    annotations: record.config?.annotations ?? {},
    runtimeHandler: record.requestedHandler,
  });
}

/** The status of PodSandboxStatus and of container events. */
export function toPodSandboxStatus(record: SandboxRecord): PodSandboxStatus {
  const network = networkStatus(record);
  return PodSandboxStatus.fromPartial({
    id: record.id,
    ...(record.config?.metadata === undefined ? {} : { metadata: record.config.metadata }),
    state: sandboxState(record),
    createdAt: record.createdAtNs,
    ...(network === undefined ? {} : { network }),
    // Always there: the kubelet makes the pod anew when the network mode it reads isn't its own.
    linux: {
      namespaces: { options: record.config?.linux?.securityContext?.namespaceOptions ?? {} },
    },
    labels: record.config?.labels ?? {},
    annotations: record.config?.annotations ?? {},
    runtimeHandler: record.requestedHandler,
  });
}

/**
 * A READY sandbox with a network of its own must never show an empty IP, for which the kubelet kills
 * the whole pod (PodSandboxChanged); no network at all is the harmless answer then.
 */
function networkStatus(record: SandboxRecord): PodSandboxNetworkStatus | undefined {
  const [ip, ...more] = record.network?.ips ?? [];
  const options = record.config?.linux?.securityContext?.namespaceOptions;
  const ofHost = options?.network === NamespaceMode.NODE;
  if (ip === undefined && !ofHost && record.phase === SandboxPhase.READY) return undefined;
  return PodSandboxNetworkStatus.fromPartial({
    ip: ofHost ? '' : (ip ?? ''),
    additionalIps: ofHost ? [] : more.map((address) => ({ ip: address })),
  });
}
