// What the kubelet's cAdvisor is told of the containers of this node, in the words that it has for
// CRI-O (cadvisor, container/crio/client.go); made from the view alone.

import {
  ContainerPhase,
  type ContainerRecord,
  type SandboxRecord,
} from '@cribus/contracts/gen/node/v1/records.ts';
import { imageSpec } from '../view/cri-container.ts';
import type { NodeView } from '../view/node-view.ts';

/** As the kubelet labels its objects (k8s.io/kubelet/pkg/types/labels.go). */
const LABEL = {
  pod: 'io.kubernetes.pod.name',
  namespace: 'io.kubernetes.pod.namespace',
  uid: 'io.kubernetes.pod.uid',
  container: 'io.kubernetes.container.name',
} as const;

/** cAdvisor counts a pod's network for the container of this name only. */
const SANDBOX_NAME = 'POD';

export interface Storage {
  /** Where images and containers are; the filesystem below it is what the kubelet calls imagefs. */
  readonly root: string;
  /** False: cAdvisor can't tell the filesystem, and would show nothing at all of a container. */
  readonly counted: boolean;
  /** Holds an empty directory of the name that cAdvisor looks into, for what writes nothing. */
  readonly emptyLayer: string;
  /** The directory of a container, whose writable layer is in it. */
  readonly directoryOf: (record: ContainerRecord) => string;
}

/** `GET /info`. With the driver `overlay` cAdvisor measures `<root>/diff` of each container. */
export function infoAnswer(storage: Pick<Storage, 'root' | 'counted'>): string {
  return JSON.stringify({
    storage_driver: storage.counted ? 'overlay' : 'unknown',
    storage_root: storage.root,
    storage_image: '',
  });
}

/** `GET /containers/{id}`, of a container or a sandbox; undefined where there is none. */
export function containerAnswer(
  view: Pick<NodeView, 'sandbox' | 'container' | 'containersOf' | 'image'>,
  storage: Storage,
  id: string,
): string | undefined {
  const sandbox = view.sandbox(id);
  if (sandbox !== undefined) return sandboxAnswer(sandbox, view.containersOf(id), storage);
  const record = view.container(id);
  if (record === undefined || record.sandboxProcess) return undefined;
  const of = view.sandbox(record.sandboxId);
  const name = record.config?.metadata?.name ?? '';
  return answer({
    createdAtNs: record.createdAtNs,
    pid: runningPid(record),
    name: podPrefixed(of, { name, attempt: record.config?.metadata?.attempt ?? 0 }),
    image: imageSpec(record, view.image(record.imageId)).image,
    labels: { ...podLabels(of, name), ...record.config?.labels },
    annotations: record.config?.annotations ?? {},
    log_path: record.logPath,
    root: storage.directoryOf(record),
    sandbox: record.sandboxId,
    ips: of?.network?.ips ?? [],
  });
}

/**
 * With the pid of the sandbox's own process, or else of any in its network namespace, for cAdvisor to
 * read the interfaces of. None for a pod in the host's network: what the host sends is no traffic of it.
 */
function sandboxAnswer(
  sandbox: SandboxRecord,
  containers: readonly ContainerRecord[],
  storage: Storage,
): string {
  const hostNetwork = (sandbox.namespaces?.net ?? '') === '';
  const running = containers.filter((one) => runningPid(one) !== 0);
  const inside = running.find((one) => one.sandboxProcess) ?? running[0];
  return answer({
    createdAtNs: sandbox.createdAtNs,
    pid: hostNetwork || inside === undefined ? 0 : runningPid(inside),
    name: podPrefixed(sandbox, {
      name: SANDBOX_NAME,
      attempt: sandbox.config?.metadata?.attempt ?? 0,
    }),
    image: '',
    labels: {
      ...podLabels(sandbox, SANDBOX_NAME),
      ...sandbox.config?.labels,
      [LABEL.container]: SANDBOX_NAME,
    },
    annotations: sandbox.config?.annotations ?? {},
    log_path: '',
    root: storage.emptyLayer,
    sandbox: sandbox.id,
    ips: sandbox.network?.ips ?? [],
  });
}

interface Facts {
  readonly createdAtNs: bigint;
  readonly ips: readonly string[];
  readonly [field: string]: unknown;
}

/** Nanoseconds are more than a JavaScript number holds, and go in by hand. */
function answer({ createdAtNs, ips, ...rest }: Facts): string {
  const addresses = { ip_address: ips[0] ?? '', ip_addresses: ips };
  return `{"created_time":${createdAtNs},${JSON.stringify({ ...rest, ...addresses }).slice(1)}`;
}

function runningPid({ phase, process }: ContainerRecord): number {
  return phase === ContainerPhase.RUNNING ? (process?.pid ?? 0) : 0;
}

/** As dashboards know names of containers since the days of Docker. */
function podPrefixed(
  sandbox: SandboxRecord | undefined,
  { name, attempt }: { readonly name: string; readonly attempt: number },
): string {
  const { name: pod = '', namespace = '', uid = '' } = sandbox?.config?.metadata ?? {};
  return `k8s_${name}_${pod}_${namespace}_${uid}_${attempt}`;
}

function podLabels(
  sandbox: SandboxRecord | undefined,
  containerName: string,
): Readonly<Record<string, string>> {
  const { name = '', namespace = '', uid = '' } = sandbox?.config?.metadata ?? {};
  return {
    [LABEL.pod]: name,
    [LABEL.namespace]: namespace,
    [LABEL.uid]: uid,
    [LABEL.container]: containerName,
  };
}
