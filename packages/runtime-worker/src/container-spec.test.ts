import assert from 'node:assert/strict';
import { PodSandboxConfig } from '@cribus/contracts/gen/cri/v1/api.ts';
import { pathOfCgroupsPath } from '@cribus/host/cgroup-slices.ts';
import { describe, it } from 'mocha';
import { cgroupsPath } from './container-spec.ts';
import type { Worker } from './worker.ts';

describe('the cgroup of a container', () => {
  const of = (driver: 'cgroupfs' | 'systemd', cgroupParent: string) => {
    const cgroups = { driver, root: '/cribus' };
    const worker = { service: { config: { cgroups } } } as unknown as Worker;
    const path = cgroupsPath(
      worker,
      PodSandboxConfig.fromPartial({ linux: { cgroupParent } }),
      'c1',
    );
    return [path, pathOfCgroupsPath(path)];
  };

  it('is below the parent that the kubelet names, and below our own where it names none', () => {
    assert.deepEqual(of('cgroupfs', '/kubepods/besteffort/pod1'), [
      '/kubepods/besteffort/pod1/c1',
      '/kubepods/besteffort/pod1/c1',
    ]);
    assert.deepEqual(of('cgroupfs', ''), ['/cribus/c1', '/cribus/c1']);
  });

  it('is a scope in the slice that the kubelet names, by its path or by its name alone', () => {
    const slice = 'kubepods-besteffort-pod1.slice';
    const scope = `/kubepods.slice/kubepods-besteffort.slice/${slice}/cribus-c1.scope`;
    const whole = `/kubepods.slice/kubepods-besteffort.slice/${slice}`;
    for (const parent of [whole, slice]) {
      assert.deepEqual(of('systemd', parent), [`${slice}:cribus:c1`, scope]);
    }
    assert.deepEqual(of('systemd', ''), [
      'system.slice:cribus:c1',
      '/system.slice/cribus-c1.scope',
    ]);
  });
});
