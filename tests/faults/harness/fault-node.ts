// A stack with its registry for tests that kill parts of it, and how its parts are killed.

import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { archive } from '../../e2e/harness/archive.ts';
import { composeImage } from '../../e2e/harness/compose-image.ts';
import { type FaultyRegistry, startFaultyRegistry } from '../../e2e/harness/faulty-registry.ts';
import { startTestRegistry, type TestRegistry } from '../../e2e/harness/images.ts';
import { assertNothingLeaked, type HostSnapshot, snapshotHost } from '../../e2e/harness/leaks.ts';
import { patient } from '../../e2e/harness/patience.ts';
import { pull } from '../../e2e/harness/pods.ts';
import { type Stack, type StackOptions, startStack } from '../../e2e/harness/stack.ts';

export type PartName = (typeof PARTS)[number];

export const SERVICES = [
  'cri-gateway',
  'image-service',
  'sandbox-manager',
  'runtime-runc',
  'runtime-gvisor',
] as const;
export const PARTS = ['nats-server', 'redis-server', ...SERVICES] as const;

/** After a part is killed everything must work again within so long: five seconds, in ms. */
export const recoveryMs = (): number => patient(5_000);

export interface FaultNode {
  readonly stack: Stack;
  /** Has been pulled already. */
  readonly image: string;
  readonly small: FaultyRegistry;
  /** A reference that was never pulled before, to a new image of one small layer. */
  freshImage(): string;
  /** Takes everything down, and fails with what is left of it on the host. */
  destroy(): Promise<void>;
}

export interface FaultNodeOptions extends StackOptions {
  /** Before the stack starts. */
  readonly prepare?: () => Promise<void>;
  /** After it is gone, and before the host is compared with how it was. */
  readonly cleanUp?: () => Promise<void>;
}

/** Starts a stack, a registry with busybox, and one that tests can make slow. */
export async function startFaultNode(options: FaultNodeOptions = {}): Promise<FaultNode> {
  const before: HostSnapshot = snapshotHost();
  await options.prepare?.();
  const registry: TestRegistry = await startTestRegistry();
  const small = await startFaultyRegistry();
  const stack = await startStack(options);
  await pull(stack.cri, registry.busybox);
  let images = 0;
  return {
    stack,
    image: registry.busybox,
    small,
    freshImage() {
      images += 1;
      const layer = archive([{ name: 'content', data: `image ${images}` }]);
      small.publish('faults/small', `v${images}`, composeImage({ layers: [layer] }));
      return `${small.host}/faults/small:v${images}`;
    },
    async destroy() {
      await stack.destroy();
      await small.stop();
      await registry.stop();
      await options.cleanUp?.();
      assertNothingLeaked(before);
    },
  };
}

/** Kills a part by SIGKILL; answers when, on the clock of `performance.now`. */
export async function killPart(stack: Stack, part: PartName): Promise<number> {
  process.kill(await stack.pidOf(part), 'SIGKILL');
  return performance.now();
}

/** Kills several processes at the same moment. */
export function killAll(pids: readonly number[]): number {
  for (const pid of pids) process.kill(pid, 'SIGKILL');
  return performance.now();
}

/** The pid of the `cribus up` that keeps a stack running. */
export async function upPid(stack: Stack): Promise<number> {
  const text = await readFile(join(stack.root, 'run', 'up.lock'), 'utf8');
  const { pid } = JSON.parse(text) as { pid: number };
  assert.ok(pid > 1, `up.lock holds ${text}`);
  return pid;
}

/** A new `up` on the same root, which must adopt or replace what is there. */
export async function upAgain(stack: Stack): Promise<string> {
  const { code, stdout, stderr } = await stack.cribus('up', '--detach');
  assert.equal(code, 0, `cribus up: ${stdout}${stderr}`);
  return stdout;
}
