// What the host must have before a stack can run on it: kernel, cgroups, modules, programs, networks.
// Each check reads and changes nothing.

import { existsSync, readFileSync, statfsSync, statSync } from 'node:fs';
import { release } from 'node:os';
import { dirname, join } from 'node:path';
import type { Config } from '@cribus/chassis/config.ts';
import { isFailure } from '@cribus/contracts/failure.ts';
import { isObject, parseNetworkList } from '@cribus/contracts/network-list.ts';
import { detectCgroups } from '@cribus/host/cgroups.ts';
import { systemClock } from '@cribus/host/clock.ts';
import { isErrno } from '@cribus/host/errno.ts';
import { listDirectory } from '@cribus/host/files.ts';
import { resolveCommand, run } from '@cribus/host/spawn.ts';
import { isExternal } from '../stack/part-report.ts';
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
  ]);
  return [...findings, ...(await checkNetwork(config))];
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

type Program =
  | { readonly kind: 'there'; readonly version: string }
  | { readonly kind: 'missing' }
  | { readonly kind: 'unusable'; readonly text: string; readonly advice: string };

/** The first line that it says of itself, and where it is; or why it says nothing. */
async function askProgram(command: string): Promise<Program> {
  const path = find(command);
  if (path === undefined) return { kind: 'missing' };
  const signal = systemClock.timeout(COMMAND_BUDGET_MS);
  const unusable = (text: string, advice: string) => ({ kind: 'unusable', text, advice }) as const;
  const another = `install one that runs on this machine (${process.arch}); try it: ${path} --version`;
  try {
    const {
      stdout,
      exitCode,
      signal: killer,
    } = await run({
      ...{ command: path, args: ['--version'], signal },
    });
    // What a shell and the dynamic linker answer for a program that they can't start.
    if (killer !== undefined || exitCode === 126 || exitCode === 127) {
      const how = killer === undefined ? `code ${exitCode}` : `signal ${killer}`;
      return unusable(`${path} --version ends with ${how}`, another);
    }
    const [first = ''] = String(stdout).split('\n');
    const version = first.replace(/^.*version[: ]*/, '') || 'which does not tell its version';
    return { kind: 'there', version: `${version} (${path})` };
  } catch (error) {
    if (signal.aborted) {
      const late = `${path} --version says nothing for ${COMMAND_BUDGET_MS / 1000} s`;
      return unusable(late, `see what it waits for: ${path} --version`);
    }
    if (isErrno(error, 'EACCES', 'EPERM')) {
      return unusable(`${path} may not be executed`, `chmod +x ${path}, or name another file`);
    }
    if (!isErrno(error, 'ENOEXEC', 'ENOENT', 'ENOTDIR', 'ELIBBAD', 'EINVAL')) throw error;
    // A script whose interpreter, or a program whose linker is missing, says ENOENT.
    return unusable(`${path} is no program that this machine can start`, another);
  }
}

export async function checkEngine(
  name: string,
  engine: string,
  isDefault: boolean,
): Promise<Finding> {
  const about = `handler ${name}`;
  const program = await askProgram(engine);
  if (program.kind === 'there') return ok(about, program.version);
  if (program.kind === 'unusable') return problem(about, program.text, program.advice);
  const advice = `install ${engine}, or name its path in runtimes.handlers.${name}.engine`;
  const found = `${engine} is not there`;
  return isDefault ? problem(about, found, advice) : warning(about, found, advice);
}

async function checkConmon(config: Config): Promise<Finding> {
  const program = await askProgram(config.monitor.conmon);
  if (program.kind === 'there') return ok('monitor', program.version);
  if (program.kind === 'unusable') return problem('monitor', program.text, program.advice);
  return problem('monitor', 'conmon is not there', 'install conmon, or set monitor.conmon');
}

/** Rules in both flavours at once are looked at by neither tool alone (iptables-nft(8)). */
async function checkIptables(): Promise<Finding> {
  const program = await askProgram('iptables');
  if (program.kind === 'unusable') return problem('iptables', program.text, program.advice);
  if (program.kind === 'missing') {
    const advice = 'install iptables: host ports and masquerading need it';
    return warning('iptables', 'iptables is not there', advice);
  }
  const { version } = program;
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

/** Exported for its test: programs of those servers that would be started here. */
export function checkServers(config: Pick<Config, 'nats' | 'redis'>): Finding[] {
  return (['nats-server', 'redis-server'] as const)
    .filter((program) => !isExternal(program, config))
    .map((program) => {
      const path = find(program);
      if (path !== undefined) return ok(program, path);
      const advice = `install ${program}, or name a server that runs elsewhere`;
      return problem(program, 'it is not there', advice);
    });
}

/** Which network configuration a pod would get, and whether its plugins are there. */
export async function checkNetwork({ cni }: Pick<Config, 'cni'>): Promise<readonly Finding[]> {
  const { conf_dir: directory, bin_dirs: programs, fallback_conf_dir: fallback } = cni;
  const files = (await listDirectory(directory))
    .filter((name) => /\.(conflist|conf|json)$/.test(name))
    .filter((name) => statSync(join(directory, name), { throwIfNoEntry: false })?.isFile())
    .sort();
  if (files.length === 0) {
    const text = `${directory} has no configuration`;
    if (fallback !== '') return [ok('network', `${text}; the stack has a bridge of its own`)];
    const advice =
      'install a network add-on (Calico, Cilium, flannel, …); "cribus up" provides a bridge meanwhile';
    return [warning('network', text, advice)];
  }
  const findings: Finding[] = [];
  // The sandbox manager passes over what it can't use, as long as another file follows.
  for (const name of files) {
    const file = join(directory, name);
    try {
      return [...findings, checkPlugins(file, pluginsIn(readable(file)), programs)];
    } catch (error) {
      if (!isFailure(error)) throw error;
      const advice = 'correct it, or move it away; the next file by name is used meanwhile';
      findings.push(problem('network', `${file}: ${error.message}`, advice));
    }
  }
  return findings;
}

function checkPlugins(
  file: string,
  plugins: readonly string[],
  programs: readonly string[],
): Finding {
  const missing = plugins.filter((name) => !programs.some((path) => existsSync(join(path, name))));
  if (missing.length === 0) return ok('network', `${file}: ${plugins.join(', ')}`);
  return problem(
    'network',
    `${file} needs ${missing.join(', ')}, in none of ${programs.join(', ')}`,
    'install containernetworking-plugins, or add the directory to cni.bin_dirs',
  );
}

/** Types of a configuration or a list of them, IPAM included. Raises invalid_argument for others. */
export function pluginsIn(text: string): string[] {
  const types = parseNetworkList(text).plugins.flatMap(({ type, ipam }) =>
    isObject(ipam) && typeof ipam['type'] === 'string' ? [type, ipam['type']] : [type],
  );
  return [...new Set(types)];
}

function readable(path: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch (error) {
    if (isErrno(error, 'ENOENT', 'EACCES', 'EPERM')) return '';
    throw error;
  }
}
