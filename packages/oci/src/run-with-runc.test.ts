// A spec that this package built, run by the real runc in a directory of its own: what the process
// sees is what was asked for. Needs root, runc, busybox-static and catatonit.

import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import {
  copyFileSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { ContainerConfig } from '@cribus/contracts/gen/cri/v1/api.ts';
import { after, before, describe, it } from 'mocha';
import { buildSandboxSpec } from './build-sandbox-spec.ts';
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
  const sandboxId = `${id}-sandbox`;

  /** Runs runc on the spec of a bundle of its own; its output, or its failure. */
  const runc = (verb: string, name: string, spec?: object): string => {
    const bundle = join(directory, name);
    if (spec !== undefined) {
      mkdirSync(bundle);
      writeFileSync(join(bundle, 'config.json'), JSON.stringify(spec));
    }
    const detached = verb === 'create';
    const ran = spawnSync(
      'runc',
      [
        ...['--root', join(directory, 'run'), verb],
        ...(spec === undefined ? [] : ['--bundle', bundle]),
        name,
      ],
      // What is created lives on and would hold our pipes open.
      { encoding: 'utf8', timeout: 15_000, stdio: detached ? 'ignore' : 'pipe' },
    );
    assert.equal(ran.status, 0, `runc ${verb}: ${ran.stderr}`);
    return ran.stdout;
  };

  const input = () => ({
    ...specInput({ host: hostOfThisTest() }),
    rootfs: join(directory, 'rootfs'),
    sandboxFiles: {
      resolvConf: join(directory, 'resolv.conf'),
      hostname: join(directory, 'hostname'),
      shm: join(directory, 'shm'),
    },
  });

  before(() => {
    directory = mkdtempSync(join(tmpdir(), 'cribus-oci-'));
    for (const path of ['rootfs/bin', 'rootfs/etc', 'rootfs/tmp', 'volume', 'shm', 'run']) {
      mkdirSync(join(directory, path), { recursive: true });
    }
    copyFileSync('/bin/busybox', join(directory, 'rootfs/bin/busybox'));
    for (const applet of 'cat grep head hostname id mkdir touch unshare wc'.split(' ')) {
      symlinkSync('busybox', join(directory, 'rootfs/bin', applet));
    }
    writeFileSync(join(directory, 'hostname'), 'pod\n');
    writeFileSync(join(directory, 'resolv.conf'), '');
  });

  after(() => {
    for (const name of [id, `${id}-member`, sandboxId]) {
      spawnSync('runc', ['--root', join(directory, 'run'), 'delete', '--force', name]);
    }
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
    const { spec } = buildContainerSpec({
      ...input(),
      container: config,
      namespaces: { network: 'host', ipc: 'own', uts: 'own', pid: 'own' },
      mounts: config.mounts.map((mount) => ({
        mount,
        source: join(directory, 'volume'),
        sourceIsDirectory: true,
      })),
      cgroupsPath: `/${id}`,
    });
    const lines = runc('run', id, spec).trimEnd().replaceAll('\t', ' ').split('\n');
    assert.deepEqual(lines, [
      '0',
      '3000',
      // 10 is a membership of root in the group file of the input.
      '3000 10 4000',
      'CapEff: 0000000002000000',
      'CapBnd: 0000000002000000',
      'NoNewPrivs: 1',
      'Seccomp: 2',
      '/tmp',
      'grüß pod',
      '1000',
      'root is read-only',
      'volume is read-only',
      'pod',
      'no new namespaces',
      '0',
      '33554432',
    ]);
  });

  it('starts the init of a sandbox, whose PID namespace a container joins', function () {
    this.timeout(20_000);
    mkdirSync(join(directory, 'init'));
    const base = input();
    const sandbox = buildSandboxSpec({
      ...base,
      sandboxId,
      rootfs: join(directory, 'init'),
      args: ['/catatonit', '-P'],
      namespaces: { network: 'host', ipc: 'own', uts: 'own', pid: 'own' },
      cgroupsPath: `/${sandboxId}`,
      binds: [{ source: '/usr/bin/catatonit', destination: '/catatonit' }],
    });
    runc('create', sandboxId, sandbox.spec);
    runc('start', sandboxId);
    const { pid } = JSON.parse(runc('state', sandboxId)) as { readonly pid: number };
    const { spec } = buildContainerSpec({
      ...base,
      container: ContainerConfig.fromPartial({
        command: ['/bin/busybox', 'sh', '-c', 'cat /proc/1/comm; id -u; id -g; hostname'],
        linux: { securityContext: { runAsUser: { value: 1000n } } },
      }),
      namespaces: {
        network: 'host',
        ipc: `/proc/${pid}/ns/ipc`,
        uts: `/proc/${pid}/ns/uts`,
        pid: `/proc/${pid}/ns/pid`,
      },
      cgroupsPath: `/${id}-member`,
    });
    assert.deepEqual(runc('run', `${id}-member`, spec).split('\n'), [
      'catatonit',
      '1000',
      '1001',
      'pod',
      '',
    ]);
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
