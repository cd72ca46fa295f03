import assert from 'node:assert/strict';
import { hostname } from 'node:os';
import { NamespaceMode, PodSandboxConfig } from '@cribus/contracts/gen/cri/v1/api.ts';
import { ContainerRecord, SandboxRecord } from '@cribus/contracts/gen/node/v1/records.ts';
import { pathOfCgroupsPath } from '@cribus/host/cgroup-slices.ts';
import { describe, it } from 'mocha';
import { cgroupsPath, hostnameOf, namespacesOf } from './container-spec.ts';
import type { Worker } from './worker.ts';

describe('the cgroup of a container', () => {
  const of = (
    driver: 'cgroupfs' | 'systemd',
    cgroupParent: string,
    shown: {
      readonly kind: 'container' | 'sandbox-process';
      readonly statsSource: 'cgroup' | 'engine';
    } | null = null,
  ) => {
    const cgroups = { driver, root: '/cribus' };
    const kubelet = { cadvisor_socket: shown === null ? '' : '/var/run/crio/crio.sock' };
    const worker = {
      driver: { statsSource: shown?.statsSource ?? 'cgroup' },
      service: { config: { cgroups, kubelet } },
    } as unknown as Worker;
    const pod = PodSandboxConfig.fromPartial({ linux: { cgroupParent } });
    const path = cgroupsPath(worker, pod, { id: 'c1', kind: shown?.kind ?? 'container' });
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

  it("has the name that the kubelet's cAdvisor knows where that is wanted, but for what is inside a Sentry", () => {
    const runc = { kind: 'container', statsSource: 'cgroup' } as const;
    const slice = 'kubepods-pod1.slice';
    const scope = `/kubepods.slice/${slice}/crio-c1.scope`;
    assert.deepEqual(of('systemd', slice, runc), [`${slice}:crio:c1`, scope]);
    assert.equal(of('cgroupfs', '/kubepods/pod1', runc)[1], '/kubepods/pod1/crio-c1.scope');
    const sentry = { kind: 'sandbox-process', statsSource: 'engine' } as const;
    assert.equal(of('cgroupfs', '/kubepods/pod1', sentry)[1], '/kubepods/pod1/crio-c1.scope');
    const inside = { kind: 'container', statsSource: 'engine' } as const;
    assert.equal(of('cgroupfs', '/kubepods/pod1', inside)[1], '/kubepods/pod1/c1');
    assert.equal(of('systemd', slice, inside)[0], `${slice}:cribus:c1`);
  });
});

describe('the name of the host in a pod', () => {
  const of = (uts: string, name: string) =>
    hostnameOf(SandboxRecord.fromPartial({ namespaces: { uts }, config: { hostname: name } }));

  it('is what the pod asks for where it has a namespace for it, and else of the host', () => {
    assert.equal(of('/run/pins/uts', 'pod'), 'pod');
    assert.equal(of('/run/pins/uts', ''), hostname());
    assert.equal(of('', ''), hostname());
    assert.equal(of('', 'pod'), hostname());
  });
});

describe('the process ids of a container', () => {
  const { POD, CONTAINER, NODE } = NamespaceMode;
  const of = (ofPod: NamespaceMode, ofContainer: NamespaceMode) => {
    const driver = { sandboxModel: 'namespaces' };
    const worker = { driver, store: new Map() } as unknown as Worker;
    const linux = (pid: NamespaceMode) => ({ securityContext: { namespaceOptions: { pid } } });
    const config = { linux: linux(ofContainer) };
    const sandbox = SandboxRecord.fromPartial({ config: { linux: linux(ofPod) } });
    return namespacesOf(worker, ContainerRecord.fromPartial({ config }), sandbox).pid;
  };

  it("are the host's in a pod with the host's, but for a container that wants its own", () => {
    assert.deepEqual([of(NODE, POD), of(NODE, NODE), of(NODE, CONTAINER)], ['host', 'host', 'own']);
    assert.deepEqual([of(CONTAINER, POD), of(CONTAINER, NODE)], ['own', 'host']);
  });
});
