// Namespaces kept by bind mounts of their nsfs files. Made on the calling thread by unshare(2) and
// left again within one synchronous call, so that nothing else ever runs inside.

export interface NamespacePins {
  readonly net?: string;
  readonly ipc?: string;
  readonly uts?: string;
}

export interface CreateNamespacesOptions {
  /** Paths (files, created here) to pin each wanted namespace at. */
  readonly pins: NamespacePins;
  /** Set in the new UTS namespace. */
  readonly hostname?: string;
  /** Written inside the new namespaces (net.*, kernel.shm*, …): name with dots to value. */
  readonly sysctls?: Readonly<Record<string, string>>;
}

/**
 * Creates and pins the namespaces, brings the loopback of a new network namespace up, sets the
 * hostname and the sysctls. On a failure nothing stays. Throws with an errno code and the step.
 */
export function createNamespaces(_options: CreateNamespacesOptions): void {
  throw new Error('not built');
}

/** True if the path is a mount of nsfs (statfs(2), NSFS_MAGIC). */
export function isNamespacePin(_path: string): boolean {
  throw new Error('not built');
}
/** Unmounts and removes a pin; nothing when absent. */
export function removeNamespacePin(_path: string): void {
  throw new Error('not built');
}
/** Pins an existing namespace, as /proc/<pid>/ns/pid. */
export function pinNamespace(_source: string, _target: string): void {
  throw new Error('not built');
}

/** Runs a synchronous function on this thread inside a network namespace, and comes back. */
export function insideNetworkNamespace<T>(_path: string, _work: () => T): T {
  throw new Error('not built');
}

/** Interfaces of a network namespace with their counters, from /proc/net/dev read inside it. */
export interface InterfaceCounters {
  readonly name: string;
  readonly rxBytes: bigint;
  readonly rxErrors: bigint;
  readonly txBytes: bigint;
  readonly txErrors: bigint;
  readonly rxPackets: bigint;
  readonly txPackets: bigint;
  readonly rxDropped: bigint;
  readonly txDropped: bigint;
}
export function interfaceCounters(_netnsPath: string): InterfaceCounters[] {
  throw new Error('not built');
}
