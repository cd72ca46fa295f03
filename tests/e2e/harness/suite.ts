// One stack, one registry and one image for all the tests of a describe block. After each test every
// pod is removed, and nothing of any may be left; at the end the host must be as it was.

import assert from 'node:assert/strict';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import {
  ListContainersRequest,
  ListPodSandboxRequest,
  RemovePodSandboxRequest,
  StopPodSandboxRequest,
} from '@cribus/contracts/gen/cri/v1/api.ts';
import { after, afterEach, before } from 'mocha';
import type { Cri } from './cri.ts';
import { startTestRegistry, type TestRegistry } from './images.ts';
import { assertNothingLeaked, snapshotHost } from './leaks.ts';
import { pull } from './pods.ts';
import { eventually, type Stack, type StackOptions, startStack } from './stack.ts';

export interface Suite {
  readonly stack: Stack;
  readonly cri: Cri;
  readonly registry: TestRegistry;
  /** The reference of busybox, pulled. */
  readonly image: string;
  /** Its id. */
  readonly imageId: string;
}

/** Every handler that a stack has by default. */
export const HANDLERS = ['runc', 'crun', 'gvisor'] as const;
/** Those of the runc family, whose containers are plain processes of the host. */
export const HOST_KERNEL_HANDLERS = ['runc', 'crun'] as const;

interface Running {
  readonly stack: Stack;
  readonly registry: TestRegistry;
  readonly imageId: string;
}

/** To be called inside a describe; what it answers can be read once its tests run. */
export function stackSuite(options: StackOptions = {}): Suite {
  let running: Running | undefined;
  let host = snapshotHost();
  let bare: readonly string[] = [];
  const get = (): Running => {
    assert.ok(running !== undefined, 'the stack did not start');
    return running;
  };
  before(async () => {
    host = snapshotHost();
    const registry = await startTestRegistry();
    const stack = await startStack(options);
    running = { stack, registry, imageId: await pull(stack.cri, registry.busybox) };
    bare = tracesOf(stack);
  });
  afterEach(async () => {
    const { stack } = get();
    await removeAllPods(stack.cri);
    await eventually('what pods left behind is gone', async () => {
      assert.deepEqual(newTraces(stack, bare), []);
      return true;
    });
  });
  after(async () => {
    try {
      await running?.stack.destroy();
    } finally {
      await running?.registry.stop();
    }
    assertNothingLeaked(host);
  });
  return {
    get stack() {
      return get().stack;
    },
    get cri() {
      return get().stack.cri;
    },
    get registry() {
      return get().registry;
    },
    get image() {
      return get().registry.busybox;
    },
    get imageId() {
      return get().imageId;
    },
  };
}

/** Stops and removes every pod; afterwards neither pods nor containers are listed. */
export async function removeAllPods(cri: Cri): Promise<void> {
  const { items } = await cri.call('listPodSandbox', ListPodSandboxRequest.fromPartial({}));
  await Promise.all(
    items.map(async ({ id: podSandboxId }) => {
      await cri.call('stopPodSandbox', StopPodSandboxRequest.fromPartial({ podSandboxId }));
      await cri.call('removePodSandbox', RemovePodSandboxRequest.fromPartial({ podSandboxId }));
    }),
  );
  const pods = await cri.call('listPodSandbox', ListPodSandboxRequest.fromPartial({}));
  const containers = await cri.call('listContainers', ListContainersRequest.fromPartial({}));
  assert.deepEqual([pods.items, containers.containers], [[], []]);
}

/** What a stack has on the host of pods and containers: to compare before and after. */
export function tracesOf(stack: Stack): string[] {
  const { root } = stack;
  const mounts = readFileSync('/proc/self/mountinfo', 'utf8')
    .split('\n')
    .map((line) => (line.split(' ')[4] ?? '').replaceAll('\\040', ' '))
    .filter((path) => path.startsWith(`${root}/`));
  const directories = [
    'state/sandboxes',
    'run/sandboxes',
    ...HANDLERS.flatMap((handler) => [
      `state/handlers/${handler}/containers`,
      `state/handlers/${handler}/exits`,
      `run/handlers/${handler}`,
      `run/handlers/${handler}/engine`,
    ]),
  ];
  return [
    ...mounts.map((path) => `mount ${path}`),
    ...directories.flatMap((directory) => entriesOf(join(root, directory))),
    ...monitorsOf(root),
  ];
}

/** Traces that weren't there before. */
export function newTraces(stack: Stack, before: readonly string[]): string[] {
  return tracesOf(stack).filter((trace) => !before.includes(trace));
}

function entriesOf(directory: string): string[] {
  if (!existsSync(directory)) return [];
  // Of one object, not what a handler has for itself.
  const ofObjects = readdirSync(directory).filter((name) => /[0-9a-f]{64}/.test(name));
  return ofObjects.map((name) => join(directory, name));
}

/** Monitors and engines of this stack, which name its root on their command lines. */
function monitorsOf(root: string): string[] {
  return readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .map((pid) => `${pid} ${commandLineOf(pid)}`)
    .filter((line) => line.includes(root) && /conmon|runc|crun|runsc/.test(line))
    .filter((line) => !/dist\/|services\//.test(line));
}

function commandLineOf(pid: string): string {
  try {
    return readFileSync(`/proc/${pid}/cmdline`, 'utf8').replaceAll('\0', ' ').trim();
  } catch {
    return '';
  }
}
