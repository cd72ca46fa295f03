// The floor: what the host takes for a pod when nobody manages it. The same namespaces, CNI plugins,
// overlay and runc by direct calls; no record, no log, no monitor.

import { randomUUID } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { writeTar } from '@cribus/cli/tour/tar-writer.ts';
import { mountOverlay, unmount } from '@cribus/host/mounts.ts';
import { createNamespaces, removeNamespacePin } from '@cribus/host/namespaces.ts';
import { run } from '@cribus/host/spawn.ts';
import { busyboxLayer } from '../e2e/harness/images.ts';
import { claimBridge } from './bridge.ts';

export interface FloorPod {
  readonly id: string;
  readonly directory: string;
  readonly pid: number;
  readonly result: object;
}

export interface Floor {
  start(): Promise<FloorPod>;
  stop(pod: FloorPod): Promise<void>;
  /** `runc exec` of true. */
  exec(pod: FloorPod): Promise<void>;
  destroy(): Promise<void>;
}

const CALL_BUDGET_MS = 30_000;
const CNI_DIRECTORY = '/usr/lib/cni';

/** Unpacks the image by tar and claims a network. */
export async function openFloor(cgroupParent: string): Promise<Floor> {
  const base = await mkdtemp(join(tmpdir(), 'cribus-bench-floor-'));
  await mkdir(join(base, 'layers', '1'), { recursive: true });
  await call('tar', ['-x', '-C', join(base, 'layers', '1')], { stdin: writeTar(busyboxLayer()) });
  await call('runc', ['spec', '-b', base]);
  const template = JSON.parse(readFileSync(join(base, 'config.json'), 'utf8')) as SpecTemplate;
  const bridge = await claimBridge(base);
  const list = JSON.parse(bridge.text) as CniList;
  const runc = (...args: string[]) => call('runc', ['--root', join(base, 'runc'), ...args]);
  const cni = (pod: Pick<FloorPod, 'id' | 'directory'>) => ({
    list,
    netns: join(pod.directory, 'net'),
    id: pod.id,
  });
  return {
    start: async () => {
      const id = randomUUID();
      const directory = join(base, id);
      const pod = { id, directory };
      for (const name of ['upper', 'work', 'rootfs']) {
        await mkdir(join(directory, name), { recursive: true });
      }
      createNamespaces({
        pins: {
          net: join(directory, 'net'),
          ipc: join(directory, 'ipc'),
          uts: join(directory, 'uts'),
        },
      });
      const result = await add(cni(pod));
      mountOverlay({
        target: join(directory, 'rootfs'),
        layersDirectory: join(base, 'layers'),
        layerNames: ['1'],
        upper: join(directory, 'upper'),
        work: join(directory, 'work'),
      });
      const spec = specOf(template, { id, directory, cgroupParent });
      await writeFile(join(directory, 'config.json'), JSON.stringify(spec));
      await runc('create', '-b', directory, '--pid-file', join(directory, 'pid'), id);
      await runc('start', id);
      return { ...pod, result, pid: Number(readFileSync(join(directory, 'pid'), 'utf8')) };
    },
    stop: async (pod) => {
      process.kill(pod.pid, 'SIGKILL');
      while (!isDead(pod.pid)) await sleep(1);
      await Promise.all([runc('delete', pod.id), del(cni(pod), pod.result)]);
      unmount(join(pod.directory, 'rootfs'));
      for (const name of ['net', 'ipc', 'uts']) removeNamespacePin(join(pod.directory, name));
      await rm(pod.directory, { recursive: true, force: true });
    },
    exec: (pod) => runc('exec', pod.id, '/bin/true').then(() => undefined),
    destroy: async () => {
      await bridge.release();
      await rm(base, { recursive: true, force: true });
    },
  };
}

interface SpecTemplate {
  readonly process: object;
  readonly linux: { readonly namespaces: readonly { readonly type: string }[] };
}

function specOf(
  template: SpecTemplate,
  pod: { readonly id: string; readonly directory: string; readonly cgroupParent: string },
): object {
  const pinned: Readonly<Record<string, string>> = { network: 'net', ipc: 'ipc', uts: 'uts' };
  return {
    ...template,
    hostname: undefined,
    root: { path: 'rootfs' },
    process: { ...template.process, terminal: false, args: ['/bin/sleep', '1000000'] },
    linux: {
      ...template.linux,
      cgroupsPath: `${pod.cgroupParent}/${pod.id}`,
      namespaces: template.linux.namespaces.map(({ type }) =>
        pinned[type] === undefined ? { type } : { type, path: join(pod.directory, pinned[type]) },
      ),
    },
  };
}

interface CniCall {
  readonly list: CniList;
  readonly netns: string;
  readonly id: string;
}

interface CniList {
  readonly cniVersion: string;
  readonly name: string;
  readonly plugins: readonly { readonly type: string }[];
}

async function add(call: CniCall): Promise<object> {
  let result: object | undefined;
  for (const plugin of call.list.plugins) {
    result = JSON.parse(await runPlugin('ADD', { ...call, plugin, previous: result })) as object;
  }
  return result ?? {};
}

async function del(call: CniCall, previous: object): Promise<void> {
  for (const plugin of [...call.list.plugins].reverse()) {
    await runPlugin('DEL', { ...call, plugin, previous });
  }
}

async function runPlugin(
  command: string,
  options: CniCall & {
    readonly plugin: { readonly type: string };
    readonly previous: object | undefined;
  },
): Promise<string> {
  const { list, plugin, previous } = options;
  const config = { ...plugin, cniVersion: list.cniVersion, name: list.name, prevResult: previous };
  return call(join(CNI_DIRECTORY, plugin.type), [], {
    stdin: Buffer.from(JSON.stringify(config)),
    env: {
      PATH: process.env['PATH'] ?? '',
      CNI_COMMAND: command,
      CNI_CONTAINERID: options.id,
      CNI_NETNS: options.netns,
      CNI_IFNAME: 'eth0',
      CNI_PATH: CNI_DIRECTORY,
    },
  });
}

async function call(
  command: string,
  args: readonly string[],
  options: { readonly stdin?: Uint8Array; readonly env?: Readonly<Record<string, string>> } = {},
): Promise<string> {
  // A container inherits runc's output: captured, it would hold the call back.
  const plugin = options.env !== undefined;
  const result = await run({
    ...options,
    ...{ command, args, stdout: plugin ? 'capture' : 'null', stderr: plugin ? 'capture' : 'null' },
    signal: AbortSignal.timeout(CALL_BUDGET_MS),
  });
  if (result.exitCode !== 0) {
    throw new Error(`${command} ${args.join(' ')}: ${result.stdout}${result.stderr}`);
  }
  return result.stdout.toString('utf8');
}

/** Gone, or waiting for its parent to read its exit. */
function isDead(pid: number): boolean {
  try {
    return /\) [ZX] /.test(readFileSync(`/proc/${pid}/stat`, 'utf8'));
  } catch {
    return true;
  }
}
