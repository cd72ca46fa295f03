// Everything that a stack's pods, containers and images have on a machine, as a set of lines: equal
// sets before and after mean that nothing was leaked, the difference says what one call made.

import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { basename, join } from 'node:path';
import { eventually } from '../../e2e/harness/stack.ts';

export interface Places {
  readonly root: string;
  /** Where host-local keeps a file for each address, and the bridge that pods hang on. */
  readonly ipam?: string;
  readonly bridge?: string;
}

const CGROUP_DEPTH_MAX = 4;

/** Of a stack that provides its own network, named in its configuration. */
export function placesOf(root: string): Places {
  const file = join(root, 'state', 'cni', 'net.d', '10-cribus.conflist');
  const { name, plugins } = JSON.parse(readFileSync(file, 'utf8')) as {
    readonly name: string;
    readonly plugins: readonly { readonly bridge?: string }[];
  };
  const ipam = join(root, 'state', 'cni', 'addresses', name);
  return { root, ipam, bridge: plugins[0]?.bridge ?? '' };
}

/** One line for each thing, its kind first. */
export function footprint(places: Places): string[] {
  const { root, ipam, bridge } = places;
  const below = (kind: string, ...path: readonly string[]) =>
    names(join(root, ...path)).map((name) => `${kind} ${name}`);
  const handlers = names(join(root, 'state', 'handlers'));
  return [
    ...below('sandbox', 'state', 'sandboxes'),
    ...below('pins', 'run', 'sandboxes'),
    ...handlers.flatMap((handler) => [
      ...below('container', 'state', 'handlers', handler, 'containers'),
      ...below('exit', 'state', 'handlers', handler, 'exits'),
      ...below('bundle', 'run', 'handlers', handler).filter((line) => hasId(line)),
      ...below('engine', 'run', 'handlers', handler, 'engine').filter((line) => hasId(line)),
    ]),
    ...below('image', 'state', 'images', 'records'),
    ...below('ingest', 'state', 'images', 'ingest'),
    ...below('layer', 'state', 'images', 'layers'),
    ...below('lease', 'state', 'images', 'leases'),
    ...mounts(root),
    ...cgroups(root),
    ...processes(root),
    ...(ipam === undefined
      ? []
      : names(ipam)
          .filter((name) => /^[0-9.]+$/.test(name))
          .map((name) => `address ${name}`)),
    ...(bridge === undefined ? [] : ports(bridge)),
  ].sort();
}

/** How many of each kind there are now and were not before. */
export function added(before: readonly string[], now: readonly string[]): Record<string, number> {
  const counts: Record<string, number> = {};
  for (const line of now.filter((one) => !before.includes(one))) {
    const kind = line.split(' ', 1)[0] ?? '';
    counts[kind] = (counts[kind] ?? 0) + 1;
  }
  return counts;
}

/** What is swept in the background has a moment for it. */
export async function assertSameFootprint(
  places: Places,
  before: readonly string[],
  budgetMs = 5_000,
): Promise<void> {
  const left = () => footprint(places).filter((line) => !before.includes(line));
  await eventually('nothing is left', async () => left().length === 0, budgetMs).catch(() => {
    assert.deepEqual(left(), [], 'left behind');
  });
}

function names(directory: string): string[] {
  return existsSync(directory) ? readdirSync(directory) : [];
}

/** By `ip`: /sys may show another network namespace. */
function ports(bridge: string): string[] {
  const shown = spawnSync('ip', ['-o', 'link', 'show', 'master', bridge], { encoding: 'utf8' });
  const lines = shown.status === 0 ? shown.stdout.split('\n') : [];
  return lines.filter((line) => line !== '').map((line) => `port ${line.split(': ')[1]}`);
}

function hasId(line: string): boolean {
  return /[0-9a-f]{64}/.test(line);
}

function mounts(root: string): string[] {
  return readFileSync('/proc/self/mountinfo', 'utf8')
    .split('\n')
    .map((line) => line.split(' ')[4] ?? '')
    .filter((path) => path.startsWith(`${root}/`) && hasId(path))
    .map((path) => `mount ${path.slice(root.length)}`);
}

/** In one hierarchy; the engines make the same in each. */
function cgroups(root: string): string[] {
  const services = readFileSync(join(root, 'state', 'generated', 'services.toml'), 'utf8');
  const own = /^\[cgroups\][^[]*?^root = "([^"]*)"$/m.exec(services)?.[1] ?? '';
  assert.notEqual(own, '', 'services.toml names no cgroup');
  const parents = ['/sys/fs/cgroup/memory', '/sys/fs/cgroup/unified', '/sys/fs/cgroup'];
  const found = parents.map((parent) => join(parent, own)).find((path) => existsSync(path));
  return found === undefined
    ? []
    : walk(found, 0)
        .filter(hasId)
        .map((path) => `cgroup ${path}`);
}

function walk(directory: string, depth: number): string[] {
  if (depth > CGROUP_DEPTH_MAX) return [];
  return readdirSync(directory, { withFileTypes: true })
    .filter((entry) => entry.isDirectory())
    .flatMap((entry) => {
      const path = join(directory, entry.name);
      return [path, ...walk(path, depth + 1)];
    });
}

/** Whatever names the root in its command line and is no part of the stack: monitors, engines. */
function processes(root: string): string[] {
  return readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name) && Number(name) !== process.pid)
    .map((pid) => {
      try {
        return { pid, argv: readFileSync(`/proc/${pid}/cmdline`, 'utf8').split('\0') };
      } catch {
        return { pid, argv: [] };
      }
    })
    .filter(({ argv }) => argv.some((word) => word.startsWith(root)) && argv.some(hasId))
    .map(({ pid, argv }) => `process ${pid} ${basename(argv[0] ?? '')}`);
}
