// The node that the Debian package makes, as its tests see it.

import { execFileSync } from 'node:child_process';
import { mkdirSync, readFileSync } from 'node:fs';
import { StatusRequest } from '@cribus/contracts/gen/cri/v1/api.ts';
import { type Cri, connectCri } from '@cribus/e2e/harness/cri.ts';
import { startTestRegistry, type TestRegistry } from '@cribus/e2e/harness/images.ts';
import { type RunningPod, runPod } from '@cribus/e2e/harness/pods.ts';
import { eventually, type Stack } from '@cribus/e2e/harness/stack.ts';

/** Kept over reboots of the machine. */
export const STATE = process.env['CRIBUS_TESTS_STATE'] ?? '/var/lib/cribus-tests';
const SOCKET = 'unix:///run/cribus/cribus.sock';
/** Software emulation: what takes a second elsewhere. */
const SETTLE_MS = 300_000;

export interface InstalledNode {
  /** Where pods' logs go; the tests' pods are made as for a stack of their own. */
  readonly root: string;
  readonly cri: Cri;
  readonly registry: TestRegistry;
  close(): Promise<void>;
}

/** Waits until CRI says that runtime and network are ready. */
export async function openNode(): Promise<InstalledNode> {
  const registry = await startTestRegistry();
  const cri = connectCri(SOCKET);
  const node = {
    root: STATE,
    cri,
    registry,
    close: async () => {
      cri.close();
      await registry.stop();
    },
  };
  mkdirSync(STATE, { recursive: true });
  await settle(node);
  return node;
}

/** Until every condition is true and each handler of the configuration is served. */
export async function settle(node: Pick<InstalledNode, 'cri'>): Promise<void> {
  await eventually(
    'the node is ready',
    async () => {
      const { status } = await node.cri.call('status', StatusRequest.fromPartial({}));
      const waiting = (status?.conditions ?? []).filter((condition) => !condition.status);
      if (waiting.length > 0) throw new Error(waiting.map(({ message }) => message).join('; '));
      return true;
    },
    SETTLE_MS,
  );
}

/** A pod that sleeps, in the slice that a kubelet would have made for it. */
export function startPod(
  node: InstalledNode,
  handler: string,
  cgroupParent: string,
): Promise<RunningPod> {
  // Of a stack of their own pods need only these two.
  return runPod(node as Pick<Stack, 'root' | 'cri'> as Stack, {
    image: node.registry.busybox,
    script: 'trap "exit 0" TERM; while :; do sleep 1; done',
    handler,
    pod: { linux: { cgroupParent, securityContext: { namespaceOptions: { pid: 1 } } } },
  });
}

/** The processes of a container, by its cgroup (v2). */
export function pidsOf(containerId: string): string {
  const find = ['/sys/fs/cgroup', '-type', 'd', '-name', `*${containerId}*`];
  const [cgroup = ''] = run('find', ...find).split('\n');
  return readFileSync(`${cgroup}/cgroup.procs`, 'utf8').split('\n')[0] ?? '';
}

export function bootId(): string {
  return readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').trim();
}

/** Runs a program to its end; its output without the last line break. Throws with what it said. */
export function run(command: string, ...args: readonly string[]): string {
  return execFileSync(command, args, { encoding: 'utf8', stdio: 'pipe' }).trimEnd();
}

/** The package of this version, as the tree has it. */
export function packageOf(version: string): string {
  const arch = process.arch === 'x64' ? 'amd64' : 'arm64';
  return new URL(`../../../dist-package/cribus_${version}_${arch}.deb`, import.meta.url).pathname;
}
