// Debian's containerd as a subject: on a root, state and socket of its own, with the same runc, CNI
// plugins and image as ours, and nothing left of it afterwards.

import { execFileSync, spawn } from 'node:child_process';
import { existsSync, readdirSync, readFileSync, rmdirSync } from 'node:fs';
import { mkdir, mkdtemp, open, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { VersionRequest } from '@cribus/contracts/gen/cri/v1/api.ts';
import { resolveCommand } from '@cribus/host/spawn.ts';
import { connectCri } from '../e2e/harness/cri.ts';
import { pull } from '../e2e/harness/pods.ts';
import { eventually } from '../e2e/harness/stack.ts';
import { claimBridge } from './bridge.ts';
import type { Subject } from './subject.ts';

/** Where containerd 1.6 puts sockets and plugins whatever its configuration says. */
const FIXED_DIRECTORIES = [
  '/run/containerd/s',
  '/run/containerd/fifo',
  '/run/containerd',
  '/var/lib/cni/results',
  '/var/lib/cni/cache',
  '/var/lib/cni',
];
const STOP_BUDGET_MS = 20_000;

/** The version that is installed, or undefined. */
export function containerdVersion(): string | undefined {
  try {
    const text = execFileSync(resolveCommand('containerd'), ['--version'], { encoding: 'utf8' });
    return /\s(\d+\.\d+\.\d+\S*)/.exec(text)?.[1] ?? text.trim();
  } catch {
    return undefined;
  }
}

export interface ContainerdOptions {
  readonly image: string;
  readonly pauseImage: string;
  readonly cgroupParent: string;
}

/** Starts it and pulls the image. */
export async function startContainerd(options: ContainerdOptions): Promise<Subject> {
  const directory = await mkdtemp(join(tmpdir(), 'cribus-bench-containerd-'));
  const already = FIXED_DIRECTORIES.filter((path) => existsSync(path));
  const bridge = await claimBridge(directory);
  await writeConfiguration(directory, { conflist: bridge.text, pauseImage: options.pauseImage });
  const log = await open(join(directory, 'log'), 'w');
  const child = spawn('containerd', ['--config', join(directory, 'config.toml')], {
    stdio: ['ignore', log.fd, log.fd],
    detached: true,
  });
  await log.close();
  const exited = new Promise<void>((done) => child.once('exit', () => done()));
  const cri = connectCri(`unix://${join(directory, 'containerd.sock')}`);
  const stop = async () => {
    cri.close();
    child.kill('SIGTERM');
    const late = setTimeout(() => child.kill('SIGKILL'), STOP_BUDGET_MS);
    await exited;
    clearTimeout(late);
    for (const pid of processesNaming(directory)) process.kill(pid, 'SIGKILL');
    await sleep(100);
    unmountBelow(directory);
    await bridge.release();
    await rm(directory, { recursive: true, force: true });
    for (const path of FIXED_DIRECTORIES) if (!already.includes(path)) removeIfEmpty(path);
  };
  try {
    await eventually('containerd answers', async () => {
      await cri.call('version', VersionRequest.fromPartial({}), { timeoutMs: 1_000 });
      return true;
    });
    await pull(cri, options.image);
    await pull(cri, options.pauseImage);
  } catch (error) {
    const text = readFileSync(join(directory, 'log'), 'utf8');
    await stop();
    throw new Error(`containerd did not start: ${text.slice(-2_000)}`, { cause: error });
  }
  return {
    name: 'containerd',
    cri,
    image: options.image,
    cgroupParent: options.cgroupParent,
    processes: async () => [child.pid ?? 0, ...processesNaming(`${directory}/containerd.sock`)],
    stop,
  };
}

async function writeConfiguration(
  directory: string,
  options: { readonly conflist: string; readonly pauseImage: string },
): Promise<void> {
  await mkdir(join(directory, 'net.d'));
  await writeFile(join(directory, 'net.d', '10-bench.conflist'), options.conflist);
  const cri = 'plugins."io.containerd.grpc.v1.cri"';
  await writeFile(
    join(directory, 'config.toml'),
    `version = 2
root = "${directory}/root"
state = "${directory}/state"
[grpc]
  address = "${directory}/containerd.sock"
[plugins."io.containerd.internal.v1.opt"]
  path = "${directory}/opt"
[${cri}]
  sandbox_image = "${options.pauseImage}"
  # Without CAP_SYS_RESOURCE no process may have a lower oom_score_adj than we have.
  restrict_oom_score_adj = true
  netns_mounts_under_state_dir = true
  [${cri}.cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "${directory}/net.d"
  [${cri}.containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
    [${cri}.containerd.runtimes.runc.options]
      Root = "${directory}/runc"
`,
  );
}

/** Processes whose command line holds this text, but not ourselves. */
function processesNaming(text: string): number[] {
  return readdirSync('/proc')
    .map(Number)
    .filter((pid) => pid > 0 && pid !== process.pid && commandLine(pid).includes(text));
}

function commandLine(pid: number): string {
  try {
    return readFileSync(`/proc/${pid}/cmdline`, 'utf8').replaceAll('\0', ' ');
  } catch {
    return '';
  }
}

function unmountBelow(directory: string): void {
  const points = readFileSync('/proc/self/mountinfo', 'utf8')
    .split('\n')
    .map((line) => line.split(' ')[4] ?? '')
    .filter((path) => path.startsWith(`${directory}/`));
  for (const point of points.reverse()) execFileSync('umount', ['-l', point]);
}

function removeIfEmpty(path: string): void {
  try {
    rmdirSync(path);
  } catch {
    // Absent, or somebody else's.
  }
}
