// What a machine holds that a stack could leave behind: taken before and after, compared as sets.

import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';

export interface HostSnapshot {
  readonly processes: ReadonlySet<string>;
  readonly mounts: ReadonlySet<string>;
  readonly links: ReadonlySet<string>;
  readonly rules: ReadonlySet<string>;
  readonly cgroups: ReadonlySet<string>;
  readonly sysctls: ReadonlySet<string>;
}

const SYSCTLS = [
  'net/ipv4/ip_forward',
  'net/ipv4/conf/all/route_localnet',
  'net/ipv6/conf/all/forwarding',
];
const CGROUP_ROOT = '/sys/fs/cgroup';
const CGROUP_DEPTH_MAX = 4;

/** Takes everything in; a few tens of milliseconds. */
export function snapshotHost(): HostSnapshot {
  return {
    processes: new Set(processes()),
    mounts: new Set(mountPoints()),
    links: new Set(
      lines('ip', ['-o', 'link']).map((line) => line.split(':')[1]?.split('@')[0]?.trim() ?? ''),
    ),
    rules: new Set([...lines('iptables', ['-S']), ...lines('iptables', ['-t', 'nat', '-S'])]),
    cgroups: new Set(cgroups(CGROUP_ROOT, besideOurs())),
    sysctls: new Set(
      SYSCTLS.map((name) => `${name}=${readFileSync(join('/proc/sys', name), 'utf8').trim()}`),
    ),
  };
}

/** Fails with everything that is there now and was not before. */
export function assertNothingLeaked(before: HostSnapshot): void {
  const after = snapshotHost();
  const leaked = Object.fromEntries(
    (Object.keys(after) as (keyof HostSnapshot)[])
      .map((kind) => [kind, [...after[kind]].filter((one) => !before[kind].has(one))] as const)
      .filter(([, added]) => added.length > 0),
  );
  assert.deepEqual(leaked, {}, `left behind: ${JSON.stringify(leaked, undefined, 1)}`);
}

/** Processes of the kinds that a stack starts, by pid and command line. */
function processes(): string[] {
  const ours =
    /conmon|nats-server|redis-server|docker-registry|catatonit|runsc|cribus|services\/|dist\/|prometheus/;
  return readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name) && Number(name) !== process.pid)
    .map((pid) => `${pid} ${commandLine(pid)}`)
    .filter((line) => ours.test(line) && !/mocha/.test(line));
}

function commandLine(pid: string): string {
  try {
    return readFileSync(`/proc/${pid}/cmdline`, 'utf8').replaceAll('\0', ' ').trim();
  } catch {
    return '';
  }
}

function mountPoints(): string[] {
  return readFileSync('/proc/self/mountinfo', 'utf8')
    .split('\n')
    .filter((line) => line !== '')
    .map((line) => line.split(' ')[4] ?? '');
}

function lines(command: string, args: readonly string[]): string[] {
  return execFileSync(command, args, { encoding: 'utf8' })
    .split('\n')
    .filter((line) => line !== '');
}

/** Beside the cgroup of the tests, whoever started them makes others for programs of its own. */
function besideOurs(): string[] {
  const ours = readFileSync('/proc/self/cgroup', 'utf8')
    .split('\n')
    .map((line) => /^\d+:([^:]*):(\/.+)$/.exec(line))
    .filter((match) => match !== null)
    .map(([, controllers = '', path = '']) => ({
      hierarchy: controllers.replace(/^name=/, '') || 'unified',
      parent: dirname(path),
    }))
    .filter(({ parent }) => parent !== '/');
  return ours.flatMap(({ hierarchy, parent }) => [
    join(CGROUP_ROOT, hierarchy, parent),
    join(CGROUP_ROOT, parent),
  ]);
}

function cgroups(directory: string, others: readonly string[], depth = 0): string[] {
  if (depth > CGROUP_DEPTH_MAX || !existsSync(directory)) return [];
  if (others.includes(directory)) return [];
  return readdirSync(directory, { withFileTypes: true })
    .filter((entry) => entry.isDirectory())
    .flatMap((entry) => {
      const path = join(directory, entry.name);
      return [path, ...cgroups(path, others, depth + 1)];
    });
}
