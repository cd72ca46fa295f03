// What the host must have before a stack can run on it: kernel, cgroups, modules, programs, networks.
// Each check reads and changes nothing.

import { existsSync, readFileSync, statfsSync } from 'node:fs';
import { release } from 'node:os';
import { dirname, join } from 'node:path';
import type { Config } from '@cribus/chassis/config.ts';
import { detectCgroups } from '@cribus/host/cgroups.ts';
import { systemClock } from '@cribus/host/clock.ts';
import { isErrno } from '@cribus/host/errno.ts';
import { listDirectory } from '@cribus/host/files.ts';
import { resolveCommand, run } from '@cribus/host/spawn.ts';
import { type Finding, ok, problem, warning } from './finding.ts';
import { checkClock } from './stack-checks.ts';

/** Idmapped mounts are there since then (mount_setattr(2)). */
const KERNEL_WANTED = [5, 12] as const;
/** What containers are made of. */
const FILESYSTEMS = ['overlay', 'tmpfs', 'proc', 'sysfs', 'mqueue'];
const COMMAND_BUDGET_MS = 5_000;
const GIB = 1024 ** 3;
/** The kubelet evicts pods below 15 % (imagefs.available) or 10 % (nodefs.available). */
const DISK_FREE_PERCENT = 15;
const INODES_FREE_PERCENT = 5;
/** What kubeadm's preflight asks for too. */
const NETWORK_SWITCHES = [
  {
    path: '/proc/sys/net/bridge/bridge-nf-call-iptables',
    lack: 'packets between pods of this node pass by the rules of services and policies',
    advice: 'modprobe br_netfilter && sysctl -w net.bridge.bridge-nf-call-iptables=1',
  },
  {
    path: '/proc/sys/net/ipv4/ip_forward',
    lack: "the host doesn't forward packets yet (most networks turn it on for the first pod)",
    advice: 'sysctl -w net.ipv4.ip_forward=1, and keep both in /etc/sysctl.d',
  },
] as const;

export async function checkHost(config: Config): Promise<Finding[]> {
  const findings = await Promise.all([
    checkKernel(release()),
    checkFilesystems(),
    checkCgroups(config),
    checkForwarding(),
    checkClock(config.roots.state),
    checkDisk(config.roots.state),
    checkConmon(config),
    checkIptables(),
    ...checkServers(config),
    ...Object.entries(config.runtimes.handlers).map(([name, handler]) =>
      checkEngine(name, handler.engine, name === config.runtimes.default),
    ),
    checkNetwork(config),
  ]);
  return findings;
}

/** Exported for its test: the release as uname(2) tells it. */
export function checkKernel(text: string): Finding {
  const [major = 0, minor = 0] = text.split(/[.-]/).map(Number);
  const [wantedMajor, wantedMinor] = KERNEL_WANTED;
  const enough = major > wantedMajor || (major === wantedMajor && minor >= wantedMinor);
  if (enough) return ok('kernel', text);
  return warning(
    'kernel',
    `${text} is older than ${KERNEL_WANTED.join('.')}`,
    'pods with a user namespace need a newer one; everything else runs',
  );
}

function checkFilesystems(): Finding {
  const known = readFileSync('/proc/filesystems', 'utf8').split(/\s+/);
  const missing = FILESYSTEMS.filter((name) => !known.includes(name));
  if (missing.length === 0) return ok('file systems', FILESYSTEMS.join(', '));
  return problem(
    'file systems',
    `the kernel doesn't know ${missing.join(', ')}`,
    `load the module: modprobe ${missing.join(' ')}`,
  );
}

function checkCgroups(config: Config): Finding {
  try {
    const { version, controllers } = detectCgroups();
    const driver = config.cgroups.driver;
    const text = `${version} with ${controllers.join(', ')}; driver ${driver}`;
    if (driver === 'systemd' && !existsSync('/run/systemd/system')) {
      return problem(
        'cgroups',
        `${text}, but no systemd runs here`,
        'set cgroups.driver = "cgroupfs", here and in the kubelet',
      );
    }
    const missing = ['cpu', 'memory', 'pids'].filter((name) => !controllers.includes(name));
    if (missing.length === 0) return ok('cgroups', text);
    const advice = 'limits of these are not applied; enable them on the kernel command line';
    return warning('cgroups', `${text}; without ${missing.join(', ')}`, advice);
  } catch (error) {
    if (!isErrno(error, 'ENODEV')) throw error;
    return problem(
      'cgroups',
      'none is mounted at /sys/fs/cgroup',
      'mount them, or enter a network namespace with nsenter --net (ip netns exec hides them)',
    );
  }
}

/** Without them a node still runs pods; services and policies of Kubernetes miss packets. */
function checkForwarding(): Finding {
  const missing = NETWORK_SWITCHES.filter(({ path }) => readable(path).trim() !== '1');
  if (missing.length === 0) return ok('modules', 'br_netfilter; the host forwards packets');
  return warning(
    'modules',
    missing.map(({ lack }) => lack).join('; '),
    missing.map(({ advice }) => advice).join('; '),
  );
}

/** Of the nearest directory that exists: the state directory may not be there yet. */
function checkDisk(state: string): Finding {
  let directory = state;
  while (!existsSync(directory)) directory = dirname(directory);
  const { bsize, blocks, bavail, files, ffree } = statfsSync(directory);
  const freePercent = Math.floor((bavail / Math.max(1, blocks)) * 100);
  const inodesPercent = files === 0 ? 100 : Math.floor((ffree / files) * 100);
  const free = `${((bavail * bsize) / GIB).toFixed(1)} GiB (${freePercent} %) free at ${directory}`;
  if (freePercent < DISK_FREE_PERCENT) {
    const advice = 'the kubelet will evict pods: remove images (crictl rmi --prune)';
    return warning('disk', free, advice);
  }
  if (inodesPercent < INODES_FREE_PERCENT) {
    return warning('disk', `${free}, but ${inodesPercent} % of the inodes`, 'remove images');
  }
  return ok('disk', free);
}

/** Absolute; undefined where no directory of PATH has it. */
function find(command: string): string | undefined {
  try {
    const path = resolveCommand(command);
    return existsSync(path) ? path : undefined;
  } catch (error) {
    if (isErrno(error, 'ENOENT')) return undefined;
    throw error;
  }
}

/** The first line that it says of itself, and where it is; undefined where it is missing. */
async function versionOf(command: string): Promise<string | undefined> {
  const path = find(command);
  if (path === undefined) return undefined;
  const signal = systemClock.timeout(COMMAND_BUDGET_MS);
  const { stdout } = await run({ command: path, args: ['--version'], signal });
  const [first = ''] = String(stdout).split('\n');
  const version = first.replace(/^.*version[: ]*/, '') || 'which does not tell its version';
  return `${version} (${path})`;
}

async function checkEngine(name: string, engine: string, isDefault: boolean): Promise<Finding> {
  const about = `handler ${name}`;
  const version = await versionOf(engine);
  if (version !== undefined) return ok(about, version);
  const advice = `install ${engine}, or name its path in runtimes.handlers.${name}.engine`;
  const found = `${engine} is not there`;
  return isDefault ? problem(about, found, advice) : warning(about, found, advice);
}

async function checkConmon(config: Config): Promise<Finding> {
  const version = await versionOf(config.monitor.conmon);
  if (version !== undefined) return ok('monitor', version);
  return problem('monitor', 'conmon is not there', 'install conmon, or set monitor.conmon');
}

/** Rules in both flavours at once are looked at by neither tool alone (iptables-nft(8)). */
async function checkIptables(): Promise<Finding> {
  const version = await versionOf('iptables');
  if (version === undefined) {
    const advice = 'install iptables: host ports and masquerading need it';
    return warning('iptables', 'iptables is not there', advice);
  }
  const legacy = readable('/proc/net/ip_tables_names').trim() !== '';
  if (version.includes('nf_tables') && legacy) {
    return warning(
      'iptables',
      `${version}, while the legacy tables hold rules too`,
      'use one flavour for all: update-alternatives --config iptables',
    );
  }
  return ok('iptables', version);
}

function checkServers(config: Config): Promise<Finding>[] {
  const own = [
    { program: 'nats-server', url: config.nats.url },
    { program: 'redis-server', url: config.redis.url },
  ];
  return own
    .filter(({ url }) => url === '' || url.includes('127.0.0.1') || url.startsWith('unix:'))
    .map(async ({ program }) => {
      const path = find(program);
      if (path !== undefined) return ok(program, path);
      const advice = `install ${program}, or name a server that runs elsewhere`;
      return problem(program, 'it is not there', advice);
    });
}

/** Which network configuration a pod would get, and whether its plugins are there. */
async function checkNetwork(config: Config): Promise<Finding> {
  const { conf_dir: directory, bin_dirs: programs, fallback_conf_dir: fallback } = config.cni;
  const isConfiguration = (name: string) => /\.(conflist|conf|json)$/.test(name);
  const [file] = (await listDirectory(directory)).filter(isConfiguration).sort();
  if (file === undefined) {
    const text = `${directory} has no configuration`;
    if (fallback !== '') return ok('network', `${text}; the stack has a bridge of its own`);
    const advice =
      'install a network add-on (Calico, Cilium, flannel, …); "cribus up" provides a bridge meanwhile';
    return warning('network', text, advice);
  }
  const plugins = pluginsIn(readable(join(directory, file)));
  const missing = plugins.filter((name) => !programs.some((path) => existsSync(join(path, name))));
  if (missing.length === 0) return ok('network', `${join(directory, file)}: ${plugins.join(', ')}`);
  return problem(
    'network',
    `${file} needs ${missing.join(', ')}, in none of ${programs.join(', ')}`,
    'install containernetworking-plugins, or add the directory to cni.bin_dirs',
  );
}

/** Types of a configuration or a list of them, IPAM included; nothing for what isn't JSON. */
export function pluginsIn(text: string): string[] {
  try {
    const parsed: unknown = JSON.parse(text);
    const list = (parsed as { plugins?: unknown[] }).plugins ?? [parsed];
    const types = list.flatMap((plugin) => {
      const { type, ipam } = plugin as { type?: string; ipam?: { type?: string } };
      return [type, ipam?.type].filter((name) => name !== undefined);
    });
    return [...new Set(types)];
  } catch (error) {
    if (error instanceof SyntaxError) return [];
    throw error;
  }
}

function readable(path: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch (error) {
    if (isErrno(error, 'ENOENT', 'EACCES', 'EPERM')) return '';
    throw error;
  }
}
