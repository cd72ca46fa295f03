// What a RunPodSandbox request may ask for, row by row.

import assert from 'node:assert/strict';
import { type FailureKind, isFailure } from '@cribus/contracts/failure.ts';
import { NamespaceMode, Protocol } from '@cribus/contracts/gen/cri/v1/api.ts';
import { RunPodSandboxRequest } from '@cribus/contracts/gen/node/v1/verbs.ts';
import { describe, it } from 'mocha';
import { checkPodCidr } from './network/pod-cidr.ts';
import { parseQuantity } from './network/quantity.ts';
import { cgroupsAbove, metricsCgroup, topmostAbsent } from './pod-cgroup.ts';
import { planSandbox } from './sandbox-plan.ts';
import { sysctlFile } from './sysctls.ts';

const FACTS = { handlers: ['runc'], cgroupDriver: 'cgroupfs' } as const;
const METADATA = { name: 'web', uid: 'u', namespace: 'default', attempt: 2 };
const plan = (config: object, more: object = {}) =>
  planSandbox(
    RunPodSandboxRequest.fromPartial({
      handler: 'runc',
      config: { metadata: METADATA, ...config },
      ...more,
    }),
    FACTS,
  );
const namespaces = (namespaceOptions: object, linux: object = {}) => ({
  linux: { securityContext: { namespaceOptions }, ...linux },
});
const ids = (...mappings: number[][]) =>
  mappings.map(([containerId = 0, hostId = 0, length = 0]) => ({ containerId, hostId, length }));
const userns = (mapping: number[], more: object = {}) =>
  namespaces({ usernsOptions: { uids: ids(mapping), gids: ids(mapping) }, ...more });

describe('sandbox plan', () => {
  it('refuses, with a kind and a sentence', () => {
    const port = { protocol: Protocol.TCP, containerPort: 80, hostPort: 80 };
    const host = { network: NamespaceMode.NODE, ipc: NamespaceMode.NODE };
    const rows: [object, RegExp, FailureKind?][] = [
      [{ metadata: undefined }, /metadata is missing/],
      [{ metadata: { ...METADATA, name: '' } }, /metadata\.name is missing/],
      [{ metadata: { ...METADATA, uid: '' } }, /metadata\.uid is missing/],
      [{ metadata: { ...METADATA, namespace: '' } }, /metadata\.namespace is missing/],
      [{ metadata: { ...METADATA, name: 'a\nb' } }, /none of them a control/],
      [
        { linux: { securityContext: { runAsGroup: { value: 7 } } } },
        /run_as_group: group 7 is given without run_as_user/,
      ],
      [{ hostname: 'h'.repeat(65) }, /longer than 64 bytes/],
      [{ logDirectory: 'var/log' }, /must be an absolute path/],
      [{ dnsConfig: { servers: ['1.1.1.1\noptions debug'] } }, /holds a space/],
      [{ portMappings: [{ ...port, containerPort: 0 }] }, /no such container port/],
      [{ portMappings: [{ ...port, hostPort: 70_000 }] }, /no such host port/],
      [{ portMappings: [{ ...port, hostIp: 'localhost' }] }, /is no address/],
      [{ portMappings: [port, port] }, /mapped twice/],
      [{ linux: { sysctls: { 'kernel.panic': '1' } } }, /not kept per namespace/],
      [{ linux: { sysctls: { 'net/../kernel/panic': '1' } } }, /not kept per namespace/],
      [{ linux: { sysctls: { 'net.core.somaxconn': '1\n2' } } }, /one short line/],
      [namespaces(host, { sysctls: { 'net.core.somaxconn': '1' } }), /the host's network/],
      [namespaces(host, { sysctls: { 'kernel.shmmax': '1' } }), /the host's IPC/],
      [namespaces(host, { sysctls: { 'fs.mqueue.msg_max': '1' } }), /the host's IPC/],
      [
        namespaces({ network: NamespaceMode.CONTAINER }),
        /network of a sandbox must be POD or NODE/,
      ],
      [namespaces({ ipc: NamespaceMode.TARGET }), /ipc of a sandbox must be POD or NODE/],
      [namespaces({ pid: NamespaceMode.TARGET }), /for containers only/],
      [{ linux: { cgroupParent: '/kubepods/../../x' } }, /must not go up/],
      [namespaces({ usernsOptions: { mode: NamespaceMode.CONTAINER } }), /POD or NODE/],
      [
        namespaces({ usernsOptions: { uids: ids([0, 1, 1], [1, 2, 1]), gids: ids([0, 1, 1]) } }),
        /exactly one mapping/,
      ],
      [
        namespaces({ usernsOptions: { uids: ids([1, 1, 1]), gids: ids([0, 1, 1]) } }),
        /must map container id 0/,
      ],
      [userns([0, 1, 0]), /a mapping of length 0/],
      [userns([0, 0, 65_536]), /must not map container id 0 to the host's root/],
      [userns([0, 4_294_901_760, 65_536]), /end beyond 4294967294/],
      [namespaces({ usernsOptions: { uids: ids([0, 1, 1]) } }), /gids must hold exactly one/],
      [
        namespaces({ usernsOptions: { mode: NamespaceMode.NODE, uids: ids([0, 1, 1]) } }),
        /has mappings, but its mode is NODE/,
      ],
      [userns([0, 1, 1], { pid: NamespaceMode.NODE }), /can't have the host's process ids/],
    ];
    for (const [config, message, kind = 'invalid_argument'] of rows) {
      assert.throws(
        () => plan(config),
        (error) => isFailure(error, kind) && message.test(error.message),
        JSON.stringify(config),
      );
    }
    assert.throws(() => plan({}, { handler: 'kata' }), /handler "kata" is not configured/);
    assert.throws(() => plan({}, { config: undefined }), /config is missing/);
  });

  it('takes only a slice for a parent where systemd drives the cgroups, and leaves it to the engine', () => {
    const parent = (cgroupParent: string) =>
      planSandbox(
        RunPodSandboxRequest.fromPartial({
          handler: 'runc',
          config: { metadata: METADATA, linux: { cgroupParent } },
        }),
        { ...FACTS, cgroupDriver: 'systemd' },
      );
    assert.equal(parent('/kubepods.slice/kubepods-pod1.slice').cgroup, undefined);
    assert.equal(parent('').cgroup, undefined);
    assert.throws(() => parent('/kubepods/pod1'), { kind: 'invalid_argument' });
  });

  it('knows which of the cgroups above a pod are absent', () => {
    const present = (...paths: string[]) => ({ isAbsent: (path: string) => !paths.includes(path) });
    assert.deepEqual(cgroupsAbove('/a/b/c'), ['/a/b', '/a']);
    assert.deepEqual(cgroupsAbove('/a'), []);
    assert.equal(topmostAbsent(present(), '/a/b/c'), '/a');
    assert.equal(topmostAbsent(present('/a'), '/a/b/c'), '/a/b');
    assert.equal(topmostAbsent(present('/a', '/a/b'), '/a/b/c'), '');
  });

  it('names the cgroup by which cAdvisor finds the network of a pod that has one', () => {
    const of = (parent: string, hostNetwork = false) =>
      metricsCgroup('5a', { parent, hostNetwork });
    assert.equal(of('/kubepods/pod1'), '/kubepods/pod1/crio-5a.scope');
    const slice = '/kubepods.slice/kubepods-pod1.slice';
    assert.equal(of('kubepods-pod1.slice'), `${slice}/crio-5a.scope`);
    assert.equal(of(slice), `${slice}/crio-5a.scope`);
    assert.equal(of(''), '');
    assert.equal(of('/kubepods/pod1', true), '');
  });

  it('plans the user namespace of a pod, whose groups bound who may ping', () => {
    const mapping = { containerId: 0, hostId: 4_145_283_072, length: 65_536 };
    const planned = plan(userns([0, 4_145_283_072, 65_536]));
    assert.deepEqual(planned.userNamespace, { uids: [mapping], gids: [mapping] });
    assert.equal(planned.sysctls.atCreation['net.ipv4.ping_group_range'], '0 65535');
    plan(userns([0, 4_294_901_759, 65_536]));
    const host = plan(namespaces({ usernsOptions: { mode: NamespaceMode.NODE } }));
    assert.equal(host.userNamespace, undefined);
  });

  it('decides what is made', () => {
    const planned = plan({
      linux: {
        cgroupParent: 'kubepods/pod1/',
        sysctls: {
          'net.ipv4.ip_forward': '1',
          'net/ipv4/conf/eth0.100/forwarding': '1',
          'net.ipv4.conf.all.forwarding': '0',
        },
      },
    });
    assert.equal(planned.key, '["default","web","u",2]');
    assert.equal(planned.cgroup, '/kubepods/pod1');
    assert.deepEqual(planned.sysctls, {
      atCreation: {
        'net.ipv4.ip_unprivileged_port_start': '0',
        'net.ipv4.ping_group_range': '0 2147483647',
        'net.ipv4.ip_forward': '1',
        'net.ipv4.conf.all.forwarding': '0',
      },
      afterAttach: { 'net.ipv4.conf.eth0/100.forwarding': '1' },
    });
    assert.equal(
      sysctlFile('net.ipv4.conf.eth0/100.forwarding'),
      '/proc/sys/net/ipv4/conf/eth0.100/forwarding',
    );
    const host = plan(namespaces({ network: NamespaceMode.NODE, pid: NamespaceMode.NODE }));
    assert.deepEqual([host.hostNetwork, host.hostIpc], [true, false]);
    // A host-network pod has no ports of its own to map.
    plan({ ...namespaces({ network: NamespaceMode.NODE }), portMappings: [{ containerPort: 0 }] });
  });

  it('reads bandwidths and pod subnets', () => {
    const limits = { min: 1_000, max: 1e15, name: 'rate' };
    const rows: [string, number][] = [
      ['10M', 1e7],
      ['1Ki', 1024],
      ['1.5k', 1500],
      ['2e6', 2e6],
    ];
    for (const [text, value] of rows) assert.equal(parseQuantity(text, limits), value);
    for (const text of ['', 'M', '1', '10Q', '-5k', '2P']) {
      assert.throws(() => parseQuantity(text, limits), /rate = /, text);
    }
    checkPodCidr('10.1.2.0/24,2001:db8::/64');
    for (const text of ['10.1.2.0', '10.1.2.0/33', 'a/8', '::/0,::/0,::/0']) {
      assert.throws(() => checkPodCidr(text), /expected a subnet/, text);
    }
  });
});
