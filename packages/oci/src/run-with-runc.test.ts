// A spec that this package built, run by the real runc in a directory of its own: what the process
// sees is what was asked for. Needs root, runc and busybox-static.

import assert from 'node:assert/strict';
import { execFileSync, spawnSync } from 'node:child_process';
import { copyFileSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { ContainerConfig } from '@cribus/contracts/gen/cri/v1/api.ts';
import { after, before, describe, it } from 'mocha';
import { buildContainerSpec } from './build-spec.ts';
import { CAPABILITIES } from './capabilities.ts';
import { specInput } from './spec-cases.ts';

const SCRIPT = `
id -u; id -g; id -G
grep -E '^(CapBnd|CapEff|NoNewPrivs|Seccomp):' /proc/self/status
pwd; echo "$GREETING $HOSTNAME"
cat /proc/self/oom_score_adj
touch /written 2>/dev/null || echo root is read-only
touch /volume/w 2>/dev/null || echo volume is read-only
cat /etc/hostname
mkdir /tmp/d && unshare -m true 2>/dev/null || echo no new namespaces
cat /proc/kcore 2>/dev/null | head -c 1 | wc -c
cat /sys/fs/cgroup/memory/memory.limit_in_bytes 2>/dev/null || cat /sys/fs/cgroup/memory.max
`;

describe('a built spec under runc', () => {
  let directory = '';
  const id = `cribus-oci-test-${process.pid}`;

  before(() => {
    directory = mkdtempSync(join(tmpdir(), 'cribus-oci-'));
    for (const path of ['rootfs/bin', 'rootfs/etc', 'rootfs/tmp', 'volume', 'shm', 'run']) {
      mkdirSync(join(directory, path), { recursive: true });
    }
    copyFileSync('/bin/busybox', join(directory, 'rootfs/bin/busybox'));
    writeFileSync(join(directory, 'hostname'), 'pod\n');
    writeFileSync(join(directory, 'resolv.conf'), '');
  });

  after(() => {
    spawnSync('runc', ['--root', join(directory, 'run'), 'delete', '--force', id]);
    rmSync(directory, { recursive: true, force: true });
  });

  it('gives the process what was asked for', function () {
    this.timeout(20_000);
    const config = ContainerConfig.fromPartial({
      metadata: { name: 'probe' },
      command: ['/bin/busybox', 'sh', '-c', SCRIPT],
      workingDir: '/tmp',
      envs: [{ key: 'GREETING', value: Buffer.from('grüß') }],
      mounts: [{ containerPath: '/volume', hostPath: '/', readonly: true }],
      linux: {
        resources: { memoryLimitInBytes: 33554432n, oomScoreAdj: 1000n },
        securityContext: {
          runAsUser: { value: 0n },
          runAsGroup: { value: 3000n },
          supplementalGroups: [4000n],
          capabilities: { addCapabilities: ['SYS_TIME'], dropCapabilities: ['ALL'] },
          readonlyRootfs: true,
          noNewPrivs: true,
          seccomp: { profileType: 0 },
          maskedPaths: ['/proc/kcore'],
          readonlyPaths: ['/proc/sys'],
        },
      },
    });
    const base = specInput({ host: hostOfThisTest() });
    const built = buildContainerSpec({
      ...base,
      container: config,
      rootfs: join(directory, 'rootfs'),
      namespaces: { network: 'host', ipc: 'own', uts: 'own', pid: 'own' },
      mounts: config.mounts.map((mount) => ({
        mount,
        source: join(directory, 'volume'),
        sourceIsDirectory: true,
      })),
      sandboxFiles: {
        resolvConf: join(directory, 'resolv.conf'),
        hostname: join(directory, 'hostname'),
        shm: join(directory, 'shm'),
      },
      cgroupsPath: `/${id}`,
    });
    for (const path of ['proc', 'dev', 'sys', 'volume']) {
      mkdirSync(join(directory, 'rootfs', path), { recursive: true });
    }
    // The masking needs applets as commands: the test's own doing, not the spec's.
    const applets = 'cat grep head id mkdir touch unshare wc'.split(' ');
    for (const applet of applets) {
      execFileSync('ln', ['-s', 'busybox', join(directory, 'rootfs/bin', applet)]);
    }
    writeFileSync(join(directory, 'config.json'), JSON.stringify(built.spec));
    const ran = spawnSync(
      'runc',
      ['--root', join(directory, 'run'), 'run', '--bundle', directory, id],
      { encoding: 'utf8', timeout: 15_000 },
    );
    assert.equal(ran.status, 0, ran.stderr);
    assert.deepEqual(
      ran.stdout.trimEnd().replaceAll('\t', ' ').split('\n'),
      [
        '0',
        '3000',
        '3000 4000',
        'CapBnd: 0000000002000000',
        'CapEff: 0000000002000000',
        'NoNewPrivs: 1',
        'Seccomp: 2',
      ].concat([
        '/tmp',
        'grüß pod',
        '1000',
        'root is read-only',
        'volume is read-only',
        'pod',
        'no new namespaces',
        '0',
        '33554432',
      ]),
    );
  });
});

function hostOfThisTest() {
  const bounding = /^CapBnd:\s*([0-9a-f]+)$/m.exec(readFileSync('/proc/self/status', 'utf8'))?.[1];
  const mask = BigInt(`0x${bounding ?? '0'}`);
  const unified = readFileSync('/proc/self/mounts', 'utf8').includes(' /sys/fs/cgroup cgroup2 ');
  return {
    capabilities: CAPABILITIES.filter((_name, number) => ((mask >> BigInt(number)) & 1n) === 1n),
    oomScoreAdjFloor: Number(readFileSync('/proc/self/oom_score_adj', 'utf8')),
    cgroupVersion: unified ? ('v2' as const) : ('v1' as const),
    swapAccounting: false,
    hugetlb: false,
    arch: process.arch === 'arm64' ? ('arm64' as const) : ('x64' as const),
  };
}
