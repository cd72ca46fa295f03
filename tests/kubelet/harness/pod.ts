// Pods as people write them and as the kubelet reports them: of Kubernetes' types only what the tests
// write and read.

export interface Container {
  readonly name: string;
  readonly [field: string]: unknown;
}

export interface PodSpec {
  readonly containers: readonly Container[];
  readonly [field: string]: unknown;
}

export interface Pod {
  readonly apiVersion: 'v1';
  readonly kind: 'Pod';
  readonly metadata: {
    readonly name: string;
    readonly namespace: string;
    readonly uid?: string;
    readonly [field: string]: unknown;
  };
  readonly spec: PodSpec;
}

export interface ContainerState {
  readonly waiting?: { readonly reason?: string; readonly message?: string };
  readonly running?: { readonly startedAt: string };
  readonly terminated?: {
    readonly exitCode: number;
    readonly reason?: string;
    readonly message?: string;
  };
}

export interface ContainerStatus {
  readonly name: string;
  readonly ready: boolean;
  readonly started?: boolean;
  readonly restartCount: number;
  readonly containerID?: string;
  readonly imageID: string;
  readonly state: ContainerState;
  readonly lastState: ContainerState;
  readonly resources?: { readonly limits?: Readonly<Record<string, string>> };
}

export interface PodView {
  readonly metadata: {
    readonly name: string;
    readonly namespace: string;
    readonly uid: string;
  };
  readonly status: {
    readonly phase: string;
    readonly podIP?: string;
    readonly hostIP?: string;
    readonly reason?: string;
    readonly message?: string;
    readonly conditions?: readonly {
      readonly type: string;
      readonly status: string;
      readonly message?: string;
    }[];
    readonly initContainerStatuses?: readonly ContainerStatus[];
    readonly containerStatuses?: readonly ContainerStatus[];
    readonly ephemeralContainerStatuses?: readonly ContainerStatus[];
  };
}

/** A container that runs a script of the shell. */
export function shell(
  name: string,
  image: string,
  script: string,
  more: Readonly<Record<string, unknown>> = {},
): Container {
  return { name, image, command: ['/bin/sh', '-c', script], ...more };
}

/** A script that waits and ends at once when it is asked to. */
export const WAIT = "trap 'exit 0' TERM; while :; do sleep 1 & wait $!; done";

/** A pod with a short grace period. */
export function pod(
  name: string,
  spec: PodSpec,
  metadata: Readonly<Record<string, unknown>> = {},
): Pod {
  return {
    apiVersion: 'v1',
    kind: 'Pod',
    metadata: { name, namespace: 'default', ...metadata },
    spec: { terminationGracePeriodSeconds: 2, ...spec },
  };
}

/** The status of a container of any kind; undefined before there is one. */
export function statusOf(
  view: PodView | undefined,
  container: string,
): ContainerStatus | undefined {
  const { status } = view ?? {};
  return [
    ...(status?.initContainerStatuses ?? []),
    ...(status?.containerStatuses ?? []),
    ...(status?.ephemeralContainerStatuses ?? []),
  ].find(({ name }) => name === container);
}

export function isReady(view: PodView | undefined): boolean {
  const conditions = view?.status.conditions ?? [];
  return conditions.some(({ type, status }) => type === 'Ready' && status === 'True');
}
