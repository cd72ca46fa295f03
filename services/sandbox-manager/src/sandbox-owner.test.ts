// The life of a pod at the sandbox manager, with real namespaces and a real network.

import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { readdir, readFile, writeFile } from 'node:fs/promises';
import { hostname } from 'node:os';
import { join } from 'node:path';
import { Failure, isFailure } from '@cribus/contracts/failure.ts';
import { NamespaceMode, Protocol } from '@cribus/contracts/gen/cri/v1/api.ts';
import { SandboxPhase } from '@cribus/contracts/gen/node/v1/records.ts';
import { DescribeRequest } from '@cribus/contracts/gen/node/v1/verbs.ts';
import { rootsBelow, sandboxPaths } from '@cribus/contracts/paths.ts';
import { detectCgroups } from '@cribus/host/cgroups.ts';
import { systemClock } from '@cribus/host/clock.ts';
import { mountsBelow } from '@cribus/host/mounts.ts';
import { isNamespacePin } from '@cribus/host/namespaces.ts';
import { describe, it } from 'mocha';
import { byId, inside, managerSuite, pod, reported } from './testing/manager-suite.ts';

describe('sandbox manager', () => {
  const suite = managerSuite();
  const { manager, worker, ask, run, get, leases } = suite;
  const hostLinks = () => inside(suite.hostNet, 'ip', '-o', 'link', 'show', 'type', 'veth').trim();

  it('removes the cgroups that it made for pods, those above them with the last', async () => {
    await manager();
    await worker();
    const cgroups = detectCgroups();
    const top = `/test-${process.pid}`;
    const inCgroup = (name: string) =>
      pod(name, { linux: { cgroupParent: `${top}/burstable/${name}` } });
    const { id: first } = await run(inCgroup('first'));
    const { id: second } = await run(inCgroup('second'));
    await ask('remove-pod-sandbox', byId(first));
    assert.equal(cgroups.isAbsent(`${top}/burstable/first`), true);
    assert.equal(cgroups.exists(`${top}/burstable/second`), true);
    await ask('remove-pod-sandbox', byId(second));
    assert.equal(cgroups.isAbsent(top), true);
    cgroups.create(top);
    const { id: third } = await run(inCgroup('third'));
    await ask('remove-pod-sandbox', byId(third));
    assert.equal(cgroups.isAbsent(`${top}/burstable`), true);
    assert.equal(cgroups.exists(top), true, 'it was there before');
    assert.equal(cgroups.removeEmpty(top), true);
  });

  it('runs, stops and removes a pod, and leaves nothing', async () => {
    await manager();
    const { seen } = await worker();
    const request = pod('web', {
      hostname: 'web',
      logDirectory: join(suite.root, 'logs/web'),
      dnsConfig: { servers: ['10.96.0.10'], searches: ['a.b', 'c'], options: ['ndots:5'] },
      portMappings: [{ protocol: Protocol.TCP, containerPort: 80, hostPort: 18080 }],
      linux: {
        sysctls: { 'net.ipv4.conf.eth0.arp_ignore': '1', 'kernel.shm_rmid_forced': '1' },
      },
    });
    const { id, changed } = await run(request);
    assert.match(id, /^[0-9a-f]{64}$/);
    assert.equal(reported(changed, id)?.phase, SandboxPhase.READY);
    const record = await get(id);
    assert.ok(record?.network);
    assert.match(record.network.ips[0] ?? '', /^10\.201\.7\.\d+$/);
    const { namespaces, directory } = record;
    assert.ok(namespaces && isNamespacePin(namespaces.net) && isNamespacePin(namespaces.uts));
    assert.match(inside(namespaces.net, 'ip', 'addr'), /inet 10\.201\.7\.\d+\/24/);
    assert.match(inside(namespaces.net, 'ip', 'link', 'show', 'lo'), /UP,LOWER_UP/);
    const sysctl = '/proc/sys/net/ipv4/conf/eth0/arp_ignore';
    assert.equal(inside(namespaces.net, 'cat', sysctl).trim(), '1');
    assert.equal(
      await readFile(join(directory, 'resolv.conf'), 'utf8'),
      'search a.b c\nnameserver 10.96.0.10\noptions ndots:5\n',
    );
    assert.equal(await readFile(join(directory, 'hostname'), 'utf8'), 'web\n');
    assert.ok(existsSync(join(suite.root, 'logs/web')));
    const { pins } = sandboxPaths(rootsBelow(suite.root), id);
    assert.deepEqual(
      mountsBelow(pins)
        .map(({ mountPoint, filesystem }) => [mountPoint.slice(pins.length + 1), filesystem])
        .sort(),
      [
        ['ipc', 'nsfs'],
        ['net', 'nsfs'],
        ['shm', 'tmpfs'],
        ['uts', 'nsfs'],
      ],
    );
    assert.match(inside(suite.hostNet, 'iptables-save', '-t', 'nat'), /dport 18080/);

    const { result } = await ask('describe', DescribeRequest.fromPartial({ id }));
    const info = JSON.parse(result.info['info'] ?? '');
    assert.equal(info.runtimeSpec.linux.namespaces[0].path, namespaces.net);
    assert.equal(info.config.log_directory, join(suite.root, 'logs/web'));
    assert.equal(info.cniResult.Interfaces.eth0.IPConfigs[0].IP, record.network.ips[0]);

    const stopped = await ask('stop-pod-sandbox', byId(id));
    assert.equal(reported(stopped.changed, id)?.phase, SandboxPhase.NOTREADY);
    assert.deepEqual(await leases(), []);
    assert.equal(hostLinks(), '');
    assert.deepEqual(mountsBelow(pins), []);
    await ask('stop-pod-sandbox', byId(id));
    await ask('remove-pod-sandbox', byId(id));
    await ask('remove-pod-sandbox', byId(id));
    await ask('stop-pod-sandbox', byId(id));
    assert.ok(!existsSync(directory) && !existsSync(pins));
    assert.deepEqual(
      seen.map(({ verb }) => verb),
      ['start-sandbox', 'stop-sandbox', 'remove-sandbox'],
    );
    await assert.rejects(get(id), (error) => isFailure(error, 'not_found'));
  });

  it('gives a host-network pod neither network nor host name of its own', async () => {
    await manager();
    await worker();
    const namespaceOptions = { network: NamespaceMode.NODE, ipc: NamespaceMode.NODE };
    const { id } = await run(pod('host', { linux: { securityContext: { namespaceOptions } } }));
    const record = await get(id);
    assert.deepEqual(record?.namespaces, { net: '', ipc: '', uts: '', user: '' });
    assert.deepEqual(record?.network?.ips, []);
    const name = await readFile(join(record?.directory ?? '', 'hostname'), 'utf8');
    assert.equal(name, `${hostname()}\n`);
    await ask('remove-pod-sandbox', byId(id));
    assert.ok(!existsSync(join(suite.root, 'runs')));
  });

  it('undoes everything when a step fails', async () => {
    await manager();
    await worker({
      start: async () => {
        throw new Failure('wrong_state', 'the engine is broken', { stage: 'start-sandbox' });
      },
    });
    await assert.rejects(
      run(pod('broken')),
      (error) => isFailure(error, 'wrong_state') && /the engine is broken/.test(error.message),
    );
    await assert.rejects(
      run(pod('sysctl', { linux: { sysctls: { 'net.no.such': '1' } } })),
      (error) => isFailure(error, 'invalid_argument') && /net\.no\.such/.test(error.message),
    );
    const script = '#!/bin/sh\necho \'{"code":11,"msg":"try later","details":"busy"}\'\nexit 1\n';
    const portmap = '[ "$CNI_COMMAND" = DEL ] && exit 0\n';
    await writeFile(join(suite.root, 'bin/portmap'), script.replace('\n', `\n${portmap}`));
    await assert.rejects(
      run(pod('plugin', { portMappings: [{ containerPort: 80, hostPort: 18080 }] })),
      (error) =>
        isFailure(error, 'unavailable') &&
        /^CNI ADD \(portmap\): sandbox [0-9a-f]{64}: try later \(code 11\); busy/.test(
          error.message,
        ),
    );
    assert.deepEqual(await leases(), []);
    assert.equal(hostLinks(), '');
    const roots = rootsBelow(suite.root);
    assert.deepEqual(await readdir(join(roots.state, 'sandboxes')), []);
    assert.deepEqual(await readdir(join(roots.run, 'sandboxes')), []);
  });

  it('joins a retry, answers it again, and refuses a duplicate', async () => {
    await manager();
    const { seen } = await worker({ start: () => systemClock.sleep(300) });
    const [first, joined] = await Promise.all([run(pod('twice')), run(pod('twice'))]);
    assert.equal(joined.id, first.id);
    assert.equal(reported(joined.changed, first.id)?.phase, SandboxPhase.READY);
    assert.equal(seen.length, 1);
    // The asker acknowledged what it got, so the same request is a duplicate now.
    await systemClock.sleep(100);
    await assert.rejects(
      run(pod('twice')),
      (error) => isFailure(error, 'already_exists') && error.message.includes(first.id),
    );
    const running = run(pod('other'));
    await systemClock.sleep(100);
    await assert.rejects(run(pod('other', { hostname: 'x' })), (error) =>
      isFailure(error, 'conflict'),
    );
    for (const id of [first.id, (await running).id]) await ask('remove-pod-sandbox', byId(id));
  });
});
