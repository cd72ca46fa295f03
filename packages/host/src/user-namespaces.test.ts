import assert from 'node:assert/strict';
import { existsSync, mkdtempSync, readlinkSync, rmSync, statSync } from 'node:fs';
import { hostname, tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, it } from 'mocha';
import { unmountTree } from './mounts.ts';
import { isNamespacePin } from './namespaces.ts';
import { listPids } from './processes.ts';
import { run } from './spawn.ts';
import { createUserNamespace } from './user-namespaces.ts';

const MAPPINGS = {
  uids: [{ containerId: 0, hostId: 100_000, length: 65_536 }],
  gids: [{ containerId: 0, hostId: 200_000, length: 1000 }],
};
const ownNamespaces = () =>
  ['user', 'net', 'ipc', 'uts'].map((kind) => readlinkSync(`/proc/thread-self/ns/${kind}`));

describe('user namespaces', () => {
  let directory = '';
  let pins = { user: '', net: '', ipc: '', uts: '' };
  beforeEach(() => {
    directory = mkdtempSync(join(tmpdir(), 'user-namespaces-'));
    const at = (name: string) => join(directory, 'new', name);
    pins = { user: at('user'), net: at('net'), ipc: at('ipc'), uts: at('uts') };
  });
  afterEach(() => {
    unmountTree(directory);
    rmSync(directory, { recursive: true });
  });
  const create = (options: Partial<Parameters<typeof createUserNamespace>[0]>) =>
    createUserNamespace({
      pins,
      mappings: MAPPINGS,
      signal: AbortSignal.timeout(5000),
      ...options,
    });

  const isInside = (pid: number) => {
    try {
      return statSync(`/proc/${pid}/ns/user`).ino === statSync(pins.user).ino;
    } catch {
      return false;
    }
  };

  it('makes the others inside it, with loopback, hostname and sysctls, and stays outside', async () => {
    const before = [ownNamespaces(), hostname()];
    const sysctls = {
      'kernel.shmmax': '70000',
      'net.ipv4.ping_group_range': '0 999',
      'fs.mqueue.msg_max': '20',
    };
    await create({ hostname: 'a-pod', sysctls });
    assert.deepEqual([ownNamespaces(), hostname()], before);
    assert.deepEqual(listPids().filter(isInside), []);
    assert.ok(Object.values(pins).every(isNamespacePin));
    const script = [
      'hostname',
      'cat /proc/self/uid_map /proc/self/gid_map',
      'cat /proc/sys/kernel/shmmax /proc/sys/net/ipv4/ping_group_range /proc/sys/fs/mqueue/msg_max',
      'grep -c lo /proc/self/net/if_inet6',
      'hostname mine && hostname',
    ].join('; ');
    const enter = Object.entries(pins).map(([kind, pin]) => `--${kind}=${pin}`);
    const { stdout, stderr } = await run({
      command: 'nsenter',
      args: [...enter, '--setuid=0', '--setgid=0', 'sh', '-c', script],
      signal: AbortSignal.timeout(5000),
    });
    assert.equal(
      stdout.toString().replaceAll(/[ \t]+/g, ' '),
      'a-pod\n 0 100000 65536\n 0 200000 1000\n70000\n0 999\n20\n1\nmine\n',
      stderr.toString(),
    );
    await assert.rejects(create({}), { code: 'EEXIST' });
    assert.ok(isNamespacePin(pins.user));
  });

  it('makes only what is wanted', async () => {
    await create({ pins: { user: pins.user, ipc: pins.ipc } });
    assert.deepEqual(Object.values(pins).map(isNamespacePin), [true, false, true, false]);
  });

  it('leaves nothing when the kernel refuses a mapping or a sysctl, or the caller gives up', async () => {
    const beyond = [{ containerId: 0, hostId: 4_294_967_290, length: 6 }];
    const mappings = { uids: beyond, gids: MAPPINGS.gids };
    await assert.rejects(create({ mappings }), {
      code: 'EINVAL',
      message: 'EINVAL: write uid_map 0 4294967290 6',
    });
    await assert.rejects(create({ sysctls: { 'kernel.no_such': '1' } }), {
      message: 'EINVAL: write sysctl kernel/no_such=1',
    });
    await assert.rejects(create({ signal: AbortSignal.abort(new Error('gone')) }), /gone/);
    assert.ok(!Object.values(pins).some(existsSync));
  });
});
