// Each limit of runsc that docs/conformance.md names, shown by runsc itself: a bundle of busybox, run
// by the installed binary with nothing of ours around it. One that no longer shows is no limit.

import assert from 'node:assert/strict';
import { execFileSync, spawnSync } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { chmodSync, cpSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createServer, type Server } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { detectCgroups } from '@cribus/host/cgroups.ts';
import { after, before, describe, it } from 'mocha';
import { type EngineLimit, GVISOR_LIMITS } from '../conformance/gvisor-limits.ts';
import { KNOWN_LIMITS, LIMITS_BEYOND_CRITEST } from '../conformance/known-limits.ts';
import { baseLayer, SET_UID_SHELL } from '../conformance/root-filesystem.ts';
import { archive } from './harness/archive.ts';

const CAPABILITIES = ['CHOWN', 'DAC_OVERRIDE', 'NET_ADMIN', 'NET_RAW', 'SETUID', 'SYS_ADMIN'].map(
  (name) => `CAP_${name}`,
);
const PLAIN = {
  ociVersion: '1.0.2',
  process: {
    user: { uid: 0, gid: 0 },
    env: ['PATH=/bin'],
    cwd: '/',
    capabilities: {
      bounding: CAPABILITIES,
      effective: CAPABILITIES,
      permitted: CAPABILITIES,
    },
  },
  hostname: 'x',
  mounts: [{ destination: '/proc', type: 'proc', source: 'proc' }],
  linux: {
    namespaces: ['mount', 'pid', 'network', 'ipc', 'uts'].map((type) => ({ type })),
  },
};
const COMMAND_TIMEOUT_MS = 30_000;

describe('runsc by itself', () => {
  const cgroup = `/cribus-limits-${process.pid}`;
  let directory: string;
  let rootfs: string;
  let listener: Server;
  let segment: string;

  before(async () => {
    directory = mkdtempSync(join(tmpdir(), 'cribus-limits-'));
    // The Sentry of a user namespace is no longer root.
    chmodSync(directory, 0o755);
    rootfs = join(directory, 'rootfs');
    mkdirSync(rootfs);
    execFileSync('tar', ['-x', '-C', rootfs], { input: archive(baseLayer()) });
    cpSync(SET_UID_SHELL, join(rootfs, 'set-uid-shell'), { dereference: true });
    execFileSync('chmod', ['4755', join(rootfs, 'set-uid-shell')]);
    // What a container sees that is given the host's network and IPC.
    listener = createServer().listen(0, '127.0.0.1');
    segment =
      execFileSync('ipcmk', ['-M', '4096'], { encoding: 'utf8' }).trim().split(' ').at(-1) ?? '';
  });
  after(() => {
    listener.close();
    execFileSync('ipcrm', ['-m', segment]);
    detectCgroups().remove(cgroup);
    rmSync(directory, { recursive: true, force: true });
  });

  for (const [name, limit] of Object.entries<EngineLimit>(GVISOR_LIMITS)) {
    it(`shows the limit "${name}": ${limit.command}`, () => {
      const output = show(limit);
      assert.match(output, limit.says);
    });
  }

  it('runs the same bundle without any of them', () => {
    const output = show({
      command: '',
      flags: [],
      args: ['sh', '-c', 'hostname y && hostname && id -u'],
      config: {},
      says: /./,
      how: 'run',
    });
    assert.equal(output, 'y\n0\n');
  });

  it('has a limit for each that the conformance table names, and no other', () => {
    const limits = [...KNOWN_LIMITS, ...LIMITS_BEYOND_CRITEST];
    const named = new Set(limits.flatMap(({ shownBy }) => shownBy ?? []));
    assert.deepEqual([...named].sort(), Object.keys(GVISOR_LIMITS).sort());
  });

  /** What the limit's command writes, standard error first. */
  function show(limit: EngineLimit): string {
    const id = `limit-${randomUUID()}`;
    const flags = ['--ignore-cgroups', '--network=none', ...limit.flags];
    if (limit.how === 'beside' || limit.how === 'checkpoint') return showBeside(limit, id);
    if (limit.how === 'exec' || limit.how === 'ps') return showExec(limit, id, flags);
    try {
      const bundle = writeBundle(id, limit.args, limit.config);
      return runsc([...flags, 'run', '--bundle', bundle, id]);
    } finally {
      runsc(['delete', '--force', id]);
    }
  }

  function showExec(limit: EngineLimit, id: string, flags: readonly string[]): string {
    try {
      start(id, writeBundle(id, ['sleep', '60'], limit.config), flags);
      const said = runsc([...flags, 'exec', id, ...limit.args]);
      return limit.how === 'exec' ? said : runsc([...flags, 'ps', id]);
    } finally {
      end(id);
    }
  }

  /** The container of the limit joins the Sentry of another one. */
  function showBeside(limit: EngineLimit, id: string): string {
    const sandbox = `sandbox-of-${id}`;
    const flags = ['--network=none'];
    const of = (kind: string, name: string) => ({
      annotations: {
        'io.kubernetes.cri.container-type': kind,
        'io.kubernetes.cri.sandbox-id': sandbox,
      },
      linux: { cgroupsPath: `${cgroup}/${name}` },
    });
    try {
      start(sandbox, writeBundle(sandbox, ['sleep', '60'], of('sandbox', sandbox)), flags);
      const config = merged(of('container', id), limit.config);
      // A further container writes to what the command has that starts it.
      const bundle = writeBundle(id, limit.args, config);
      if (limit.how === 'beside') return start(id, bundle, flags);
      create(id, bundle, flags);
      // The Sentry keeps what the command has, which would not end before it.
      const quietly = ['-c', 'exec runsc "$@" </dev/null >/dev/null 2>&1', 'sh'];
      execFileSync('sh', [...quietly, ...rootFlags(), ...flags, 'start', id]);
      const images = join(directory, 'images');
      mkdirSync(images);
      runsc([...flags, 'checkpoint', '--leave-running', '--image-path', images, id]);
      return runsc([...flags, 'state', sandbox]);
    } finally {
      end(id);
      end(sandbox);
    }
  }

  /** Answers what `start` writes. */
  function start(id: string, bundle: string, flags: readonly string[]): string {
    create(id, bundle, flags);
    return runsc([...flags, 'start', id]);
  }

  function create(id: string, bundle: string, flags: readonly string[]): void {
    const script = 'exec runsc "$@" </dev/null >/dev/null 2>&1';
    const words = [...rootFlags(), ...flags, 'create', '--bundle', bundle, id];
    execFileSync('sh', ['-c', script, 'sh', ...words], { timeout: COMMAND_TIMEOUT_MS });
  }

  function end(id: string): void {
    runsc(['kill', id, 'KILL']);
    runsc(['wait', id]);
    runsc(['delete', '--force', id]);
  }

  function rootFlags(): string[] {
    return ['--root', join(directory, 'root')];
  }

  function runsc(args: readonly string[]): string {
    const result = spawnSync('runsc', [...rootFlags(), ...args], {
      encoding: 'utf8',
      stdio: ['ignore', 'pipe', 'pipe'],
      timeout: COMMAND_TIMEOUT_MS,
    });
    if (result.error !== undefined) throw result.error;
    return `${result.stderr}${result.stdout}`;
  }

  function writeBundle(id: string, args: readonly string[], config: object): string {
    const bundle = join(directory, id);
    mkdirSync(bundle);
    const spec = merged({ ...PLAIN, root: { path: rootfs } }, config);
    const text = JSON.stringify(merged(spec, { process: { args } }));
    writeFileSync(join(bundle, 'config.json'), text);
    return bundle;
  }
});

function merged(base: object, change: object): object {
  const result: Record<string, unknown> = { ...base };
  for (const [key, value] of Object.entries(change)) {
    const now = result[key];
    result[key] = isTable(now) && isTable(value) ? merged(now, value) : value;
  }
  return result;
}

function isTable(value: unknown): value is object {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}
