import assert from 'node:assert/strict';
import { existsSync, mkdtempSync, readdirSync, readFileSync, readlinkSync, rmSync } from 'node:fs';
import { hostname, networkInterfaces, tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, it } from 'mocha';
import { unmountTree } from './mounts.ts';
import {
  createNamespaces,
  insideNetworkNamespace,
  interfaceCounters,
  isNamespacePin,
  networkNamespaceNumber,
  parseInterfaceCounters,
  pinNamespace,
  removeNamespacePin,
} from './namespaces.ts';
import { run } from './spawn.ts';

const PORT_START = '/proc/sys/net/ipv4/ip_unprivileged_port_start';
const ownNamespaces = () =>
  ['net', 'ipc', 'uts'].map((kind) => readlinkSync(`/proc/thread-self/ns/${kind}`));

describe('namespaces', () => {
  let directory = '';
  let pins = { net: '', ipc: '', uts: '' };
  beforeEach(() => {
    directory = mkdtempSync(join(tmpdir(), 'namespaces-'));
    pins = {
      net: join(directory, 'new', 'net'),
      ipc: join(directory, 'new', 'ipc'),
      uts: join(directory, 'new', 'uts'),
    };
  });
  afterEach(() => {
    unmountTree(directory);
    rmSync(directory, { recursive: true });
  });

  it('numbers a network namespace anew, also one that took the place of one that is gone', () => {
    const seen = [networkNamespaceNumber()];
    for (let round = 0; round < 3; round += 1) {
      createNamespaces({ pins: { net: pins.net } });
      const inside = insideNetworkNamespace(pins.net, networkNamespaceNumber);
      assert.equal(insideNetworkNamespace(pins.net, networkNamespaceNumber), inside);
      seen.push(inside);
      removeNamespacePin(pins.net);
    }
    assert.equal(new Set(seen).size, seen.length);
    assert.equal(networkNamespaceNumber(), seen[0]);
  });

  it('makes all three with loopback, hostname and sysctls, and comes back', async () => {
    const before = [ownNamespaces(), hostname(), readFileSync(PORT_START, 'utf8')];
    const sysctls = { 'net.ipv4.ip_unprivileged_port_start': '7', 'kernel.shm_rmid_forced': '1' };
    createNamespaces({ pins, hostname: 'a-pod', sysctls });
    assert.deepEqual([ownNamespaces(), hostname(), readFileSync(PORT_START, 'utf8')], before);
    assert.ok(Object.values(pins).every(isNamespacePin));
    const script = [
      'hostname',
      `cat ${PORT_START} /proc/sys/kernel/shm_rmid_forced`,
      'ping -c1 -W1 127.0.0.1 >/dev/null 2>&1; cat /proc/self/net/if_inet6 | grep -c lo',
    ].join('; ');
    const enter = [`--net=${pins.net}`, `--ipc=${pins.ipc}`, `--uts=${pins.uts}`];
    const result = await run({
      command: 'nsenter',
      args: [...enter, 'sh', '-c', script],
      signal: AbortSignal.timeout(5000),
    });
    assert.equal(result.stdout.toString(), 'a-pod\n7\n1\n1\n', result.stderr.toString());
    assert.throws(() => createNamespaces({ pins: { uts: pins.uts } }), { code: 'EEXIST' });
    assert.ok(isNamespacePin(pins.uts));
    for (const pin of Object.values(pins)) {
      removeNamespacePin(pin);
      removeNamespacePin(pin);
      assert.ok(!existsSync(pin) && !isNamespacePin(pin));
    }
  });

  it('leaves nothing when a step fails, and names the step', () => {
    const before = [ownNamespaces(), readdirSync('/proc/self/fd').length];
    const refusals = [
      { sysctls: { 'net.no.such': '1' }, error: { code: 'ENOENT', message: /net\.no\.such/ } },
      { sysctls: { 'net...kernel.x': '1' }, error: { code: 'EINVAL' } },
      { hostname: 'x'.repeat(65), error: { code: 'EINVAL', syscall: 'sethostname' } },
      { pins: { ...pins, uts: '/etc/passwd/uts' }, error: { code: 'ENOTDIR' } },
      { pins: { net: pins.net }, hostname: 'x', error: { syscall: 'sethostname' } },
    ];
    for (const { error, ...options } of refusals) {
      assert.throws(() => createNamespaces({ pins, ...options }), error);
      const left = existsSync(join(directory, 'new')) ? readdirSync(join(directory, 'new')) : [];
      assert.deepEqual(left, []);
    }
    assert.deepEqual([ownNamespaces(), readdirSync('/proc/self/fd').length], before);
  });

  it('makes only what is wanted', () => {
    createNamespaces({ pins: { ipc: pins.ipc } });
    assert.deepEqual(readdirSync(join(directory, 'new')), ['ipc']);
  });

  it('works inside a network namespace and comes back, even from a throw', () => {
    createNamespaces({ pins: { net: pins.net } });
    const before = ownNamespaces();
    const names = insideNetworkNamespace(pins.net, () => Object.keys(networkInterfaces()));
    assert.deepEqual(names, ['lo']);
    const failing = () => {
      throw new Error('inside');
    };
    assert.throws(() => insideNetworkNamespace(pins.net, failing), /inside/);
    assert.throws(() => insideNetworkNamespace('/etc/passwd', () => 1), { code: 'EINVAL' });
    assert.throws(() => interfaceCounters('/absent'), { code: 'ENOENT' });
    assert.deepEqual(ownNamespaces(), before);
    assert.deepEqual(
      interfaceCounters(pins.net).map(({ name, rxBytes }) => [name, rxBytes]),
      [['lo', 0n]],
    );
  });

  it('pins a namespace that exists', () => {
    const pin = join(directory, 'pid');
    pinNamespace('/proc/self/ns/pid', pin);
    assert.equal(isNamespacePin(pin), true);
    removeNamespacePin(pin);
    assert.throws(() => pinNamespace('/proc/self/ns/absent', pin), { code: 'ENOENT' });
    assert.deepEqual(readdirSync(directory), []);
  });

  it('reads counters by column', () => {
    const text = [
      'Inter-|   Receive                  |  Transmit',
      ' face |bytes packets errs drop fifo frame compressed multicast|bytes packets errs drop fifo',
      '  eth0:18446744073709551615 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16',
      '',
    ].join('\n');
    assert.deepEqual(parseInterfaceCounters(text), [
      {
        name: 'eth0',
        rxBytes: 18446744073709551615n,
        rxPackets: 2n,
        rxErrors: 3n,
        rxDropped: 4n,
        txBytes: 9n,
        txPackets: 10n,
        txErrors: 11n,
        txDropped: 12n,
      },
    ]);
  });
});
