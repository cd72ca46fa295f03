// The node that the Debian package or the installer makes, as its tests see it. Each phase calls
// provideNode, so that it can run after others or alone.

import { execFileSync } from 'node:child_process';
import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import {
  type LinuxSandboxSecurityContext,
  ListPodSandboxRequest,
  NamespaceMode,
  RemovePodSandboxRequest,
  StatusRequest,
  StopPodSandboxRequest,
} from '@cribus/contracts/gen/cri/v1/api.ts';
import { type Cri, connectCri } from '@cribus/e2e/harness/cri.ts';
import { startTestRegistry, type TestRegistry } from '@cribus/e2e/harness/images.ts';
import { pull, type RunningPod, runPod } from '@cribus/e2e/harness/pods.ts';
import { eventually, type Stack } from '@cribus/e2e/harness/stack.ts';

/** Kept over reboots of the machine. */
export const STATE = process.env['CRIBUS_TESTS_STATE'] ?? '/var/lib/cribus-tests';
export const ENDPOINT = 'unix:///run/cribus/cribus.sock';
export const CONFIG = '/etc/cribus/cribus.toml';
/** The tree that is tested, on a disk that is only read. */
export const TREE = fileURLToPath(new URL('../../../', import.meta.url));
/** Software emulation: what takes a second elsewhere. */
const SETTLE_MS = 300_000;
const PACKAGES = join(TREE, 'dist-package');

export const SERVICES = [
  'cribus-gateway',
  'cribus-image-service',
  'cribus-sandbox-manager',
  'cribus-runtime-runc',
  'cribus-runtime-gvisor',
] as const;

const BRIDGE = JSON.stringify({
  cniVersion: '1.0.0',
  name: 'pods',
  plugins: [
    {
      type: 'bridge',
      bridge: 'cni0',
      isGateway: true,
      ipMasq: true,
      ipam: { type: 'host-local', ranges: [[{ subnet: '10.85.0.0/24' }]] },
    },
    { type: 'portmap', capabilities: { portMappings: true } },
  ],
});

export type CgroupDriver = 'systemd' | 'cgroupfs';

export interface InstalledNode {
  /** Where pods' logs go; the tests' pods are made as for a stack of their own. */
  readonly root: string;
  readonly cri: Cri;
  readonly registry: TestRegistry;
  /** As `/kubepods.slice/kubepods-podX.slice`: the cgroup of a pod, as a kubelet with the driver names it. */
  cgroupParent(pod: string): string;
  close(): Promise<void>;
}

/** A ready node with this cgroup driver, busybox and no pods; the package is installed where nothing is. */
export async function provideNode(
  driver: CgroupDriver = 'systemd',
  install: () => void = installPackage,
): Promise<InstalledNode> {
  if (!existsSync('/usr/lib/cribus')) {
    // Before its first start, so that the package has to leave it alone.
    mkdirSync('/etc/cribus', { recursive: true });
    writeFileSync(CONFIG, `[cgroups]\ndriver = "${driver}"\n`);
    mkdirSync('/etc/cni/net.d', { recursive: true });
    writeFileSync('/etc/cni/net.d/10-bridge.conflist', BRIDGE);
    install();
  } else if (!readFileSync(CONFIG, 'utf8').includes(`"${driver}"`)) {
    await switchDriver(driver);
  }
  const node = await openNode(driver);
  await removePods(node);
  await pull(node.cri, node.registry.busybox);
  return node;
}

/** As docs/kubernetes.md says it: on a drained node, in the file and by one command. */
async function switchDriver(driver: CgroupDriver): Promise<void> {
  const cri = connectCri(ENDPOINT);
  try {
    await settle({ cri });
    await removePods({ cri });
  } finally {
    cri.close();
  }
  writeFileSync(CONFIG, `[cgroups]\ndriver = "${driver}"\n`);
  run('systemctl', 'restart', 'cribus-prepare.service', 'cribus.target');
}

/** Of the node that is installed, as soon as CRI says that runtime and network are ready. */
export async function openNode(driver: CgroupDriver = 'systemd'): Promise<InstalledNode> {
  mkdirSync(STATE, { recursive: true });
  const registry = await startTestRegistry();
  const cri = connectCri(ENDPOINT);
  const node: InstalledNode = {
    root: STATE,
    cri,
    registry,
    cgroupParent: (pod) =>
      driver === 'systemd' ? `/kubepods.slice/kubepods-pod${pod}.slice` : `/kubepods/pod${pod}`,
    close: async () => {
      cri.close();
      await registry.stop();
    },
  };
  await settle(node);
  return node;
}

/** Until each unit says that it is ready, and every condition is true. */
export async function settle(node: Pick<InstalledNode, 'cri'>): Promise<void> {
  await eventually(
    'the node is ready',
    async () => {
      for (const name of SERVICES) run('systemctl', 'is-active', `${name}.service`);
      const { status } = await node.cri.call('status', StatusRequest.fromPartial({}));
      const waiting = (status?.conditions ?? []).filter((condition) => !condition.status);
      if (waiting.length > 0) throw new Error(waiting.map(({ message }) => message).join('; '));
      return true;
    },
    SETTLE_MS,
  );
}

export type PodOptions = Omit<Parameters<typeof runPod>[1], 'image' | 'script' | 'pod'> & {
  readonly script?: string;
  /** For the name of the pod's cgroup. */
  readonly podUid?: string;
  readonly privileged?: boolean;
  /** Whose processes the pod's containers see; each its own by default. */
  readonly pid?: NamespaceMode;
  /** What the pod's security context says besides. */
  readonly security?: Parameters<typeof LinuxSandboxSecurityContext.fromPartial>[0];
};

/** A pod that sleeps, or does what it is told, in the cgroup that a kubelet would have named. */
export function startPod(node: InstalledNode, options: PodOptions = {}): Promise<RunningPod> {
  const { podUid = 'd1f0', privileged = false, security = {}, ...others } = options;
  const { pid = NamespaceMode.CONTAINER, ...rest } = others;
  // Of a stack of their own pods need only these two.
  return runPod(node as Pick<Stack, 'root' | 'cri'> as Stack, {
    image: node.registry.busybox,
    script: 'trap "exit 0" TERM; while :; do sleep 1; done',
    pod: {
      linux: {
        cgroupParent: node.cgroupParent(podUid),
        securityContext: { ...security, privileged, namespaceOptions: { pid } },
      },
    },
    ...rest,
  });
}

/** Stops and removes every pod that there is. */
export async function removePods({ cri }: Pick<InstalledNode, 'cri'>): Promise<void> {
  const { items } = await cri.call('listPodSandbox', ListPodSandboxRequest.fromPartial({}));
  for (const { id: podSandboxId } of items) {
    await cri.call('stopPodSandbox', StopPodSandboxRequest.fromPartial({ podSandboxId }));
    await cri.call('removePodSandbox', RemovePodSandboxRequest.fromPartial({ podSandboxId }));
  }
}

/** The cgroups (v2) whose name holds the text, as directories. */
export function cgroupsOf(name: string): string[] {
  const found = run('find', '/sys/fs/cgroup', '-type', 'd', '-name', `*${name}*`);
  return found === '' ? [] : found.split('\n');
}

/** The cgroup that limits a container: below its scope crun makes one. */
export function cgroupOf(containerId: string): string {
  const found = cgroupsOf(containerId);
  const [cgroup] = found;
  if (cgroup === undefined || found.length > 1) throw new Error(`cgroups: ${found.join(', ')}`);
  const below = join(cgroup, 'container');
  return existsSync(below) ? below : cgroup;
}

/** The first process of a container, by its cgroup. */
export function pidOf(containerId: string): string {
  return readFileSync(`${cgroupOf(containerId)}/cgroup.procs`, 'utf8').split('\n')[0] ?? '';
}

export function bootId(): string {
  return readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').trim();
}

/** Runs a program to its end; its output without the last line break. Throws with what it said. */
export function run(command: string, ...args: readonly string[]): string {
  return execFileSync(command, args, { encoding: 'utf8', stdio: 'pipe' }).trimEnd();
}

/** The package of this tree, or the one of another version. */
export function packageFile(which: 'this' | 'other'): string {
  const directory = which === 'this' ? PACKAGES : join(PACKAGES, 'other');
  const file = readdirSync(directory).find((name) => name.endsWith('.deb'));
  if (file === undefined) throw new Error(`${directory} has no package`);
  return join(directory, file);
}

export function installPackage(): void {
  run('dpkg', '--force-confold', '-i', packageFile('this'));
}
