// Tables of the mounts, devices and limits of a container.

import { describe, it } from 'mocha';
import { type CaseInput, device, table } from './spec-cases.ts';

describe('buildContainerSpec, of the kernel', () => {
  it('mounts', () => {
    const mounts = (...given: object[]) => ({ container: { mounts: given } });
    const at = (containerPath: string, more: object = {}) => ({
      hostPath: '/h',
      containerPath,
      ...more,
    });
    table(
      'mounts',
      {
        'parents first, last of a place wins': mounts(
          at('/a/b/c'),
          at('/a', { hostPath: '/first' }),
          at('/z'),
          at('/a/', { hostPath: '/second' }),
        ),
        'over our own': mounts(at('/dev/shm'), at('/etc/hostname'), at('/sys/fs/cgroup')),
        'all of /dev': mounts(at('/dev')),
        'read-only root': { security: { readonlyRootfs: true } },
        propagation: mounts(at('/s', { propagation: 2 }), at('/l', { propagation: 1 })),
        'recursively read-only': mounts(at('/r', { readonly: true, recursiveReadOnly: true })),
        'privileged: writable, and the host’s cgroups': { security: { privileged: true } },
        'privileged, cgroup v1': {
          security: { privileged: true },
          host: { cgroupVersion: 'v1' },
        },
        'privileged, cgroups of the engine’s own': {
          security: { privileged: true },
          host: { ownCgroupFilesystem: true },
        },
        image: mounts({ containerPath: '/i', readonly: true, image: { image: 'sha256:1' } }),
        'host network in a user namespace': {
          namespaces: { network: 'host', user: '/run/pins/user' },
        },
        'host network in a user namespace, privileged': {
          namespaces: { network: 'host', user: '/run/pins/user' },
          security: { privileged: true },
        },
        'host network in a user namespace, not recursively read-only': {
          namespaces: { network: 'host', user: '/run/pins/user' },
          host: { recursiveReadOnlyMounts: false },
        },
        "the host's IPC in a user namespace": {
          namespaces: { ipc: 'host', user: '/run/pins/user' },
        },
        'a user namespace without mappings': {
          namespaces: { user: '/run/pins/user' },
          unmapped: true,
        },
        'no path': mounts(at('')),
        'relative path': mounts(at('a')),
        'the root': mounts(at('/a/..')),
        'recursive, not read-only': mounts(at('/r', { recursiveReadOnly: true })),
        'recursive, propagated': mounts(
          at('/r', { readonly: true, recursiveReadOnly: true, propagation: 1 }),
        ),
        'recursive, unsupported': {
          ...mounts(at('/r', { readonly: true, recursiveReadOnly: true })),
          host: { recursiveReadOnlyMounts: false },
        },
        'recursive, of an image': {
          ...mounts({
            containerPath: '/i',
            readonly: true,
            recursiveReadOnly: true,
            image: { image: 'x' },
          }),
          host: { recursiveReadOnlyMounts: false },
        },
        'propagated image': mounts({
          containerPath: '/i',
          readonly: true,
          propagation: 2,
          image: { image: 'x' },
        }),
        'bidirectional, unsupported': {
          ...mounts(at('/s', { propagation: 2 })),
          host: { bidirectionalMounts: false },
        },
        'image and host path': mounts(at('/i', { readonly: true, image: { image: 'x' } })),
        'writable image': mounts({ containerPath: '/i', image: { image: 'x' } }),
        'sub-path of no image': mounts(at('/i', { imageSubPath: 'x' })),
      },
      ({ spec, mounts: effective }) => ({
        mounts: spec.mounts.map((m) => `${m.destination} ${m.source} ${m.options.join()}`),
        propagation: spec.linux.rootfsPropagation,
        status: effective.map((mount) => mount.containerPath),
      }),
    );
  });

  it('gives devices', () => {
    table(
      'devices',
      {
        none: {},
        one: { container: { devices: [device('/dev/fuse', '/dev/fuse2', 'rw')] } },
        directory: { container: { devices: [device('/dev/snd', '/dev/sound', '')] } },
        privileged: { security: { privileged: true } },
        absent: { container: { devices: [device('/dev/nope', '/dev/nope', 'r')] } },
        'wrong letters': { container: { devices: [device('/dev/fuse', '', 'rx')] } },
        'relative place': { container: { devices: [device('/dev/fuse', 'fuse', 'r')] } },
      },
      ({ spec }) => ({
        devices: spec.linux.devices.map((node) => node.path),
        rules: spec.linux.resources.devices,
      }),
    );
  });

  it('limits resources', () => {
    const limits = (resources: object, host: CaseInput['host'] = {}) => ({
      container: { linux: { resources } },
      host,
    });
    table(
      'resources',
      {
        unspecified: limits({}),
        all: limits({
          cpuPeriod: 100000n,
          cpuQuota: -1n,
          cpuShares: 512n,
          cpusetCpus: '0-1,3',
          cpusetMems: '0',
          memoryLimitInBytes: 2n ** 24n,
          memorySwapLimitInBytes: 2n ** 25n,
          unified: { 'memory.high': '1000' },
          hugepageLimits: [{ pageSize: '2MB', limit: 4194304n }],
          oomScoreAdj: 2000n,
        }),
        'no swap of its own': limits({ memoryLimitInBytes: 2n ** 24n }),
        'as good as unlimited': limits({ memoryLimitInBytes: 2n ** 63n - 1n }),
        'cgroup v1': limits({ unified: { 'memory.high': '1' } }, { cgroupVersion: 'v1' }),
        'processes of cgroup v1': limits(
          { unified: { 'pids.max': '50' } },
          { cgroupVersion: 'v1' },
        ),
        'no hugetlb': limits(
          { hugepageLimits: [{ pageSize: '2MB', limit: 1n }] },
          { hugetlb: false },
        ),
        'too little memory': limits({ memoryLimitInBytes: 4096n }),
        'less swap than memory': limits({
          memoryLimitInBytes: 2n ** 24n,
          memorySwapLimitInBytes: 2n ** 23n,
        }),
        'swap alone': limits({ memorySwapLimitInBytes: 2n ** 23n }),
        'negative memory': limits({ memoryLimitInBytes: -2n }),
        'negative shares': limits({ cpuShares: -1n }),
        'wrong set': limits({ cpusetCpus: '0;rm' }),
        'wrong page size': limits({ hugepageLimits: [{ pageSize: '../x', limit: 1n }] }),
        'wrong file': limits({ unified: { '../memory.high': '1' } }),
      },
      ({ spec, notes }) => {
        const { devices: _devices, ...rest } = spec.linux.resources;
        return { ...rest, oom: spec.process.oomScoreAdj, notes };
      },
    );
  });
});
