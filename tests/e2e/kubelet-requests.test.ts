// What a real kubelet asked for (recorded of version 1.36.2), feature by feature, played against the
// stack.

import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import {
  chmodSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  readlinkSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { hostname, tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { buildImage, pushImage } from '@cribus/cli/tour/image.ts';
import { freePort } from '@cribus/cli/tour/registry.ts';
import type { TarEntry } from '@cribus/cli/tour/tar-writer.ts';
import {
  ContainerState,
  ListPodSandboxRequest,
  MountPropagation,
  NamespaceMode,
  Signal,
} from '@cribus/contracts/gen/cri/v1/api.ts';
import { detectCgroups } from '@cribus/host/cgroups.ts';
import { after, before, describe, it } from 'mocha';
import { fetchText } from './harness/http.ts';
import { busyboxLayer } from './harness/images.ts';
import {
  containerStatus,
  exec,
  pidOf,
  pull,
  shellContainer,
  startContainer,
} from './harness/pods.ts';
import { play, type Recorded, recordedPod } from './harness/recorded.ts';
import { eventually, readLog } from './harness/stack.ts';
import { stackSuite } from './harness/suite.ts';

const CGROUP = `/cribus-e2e-kubelet-${process.pid}`;
const NET_ADMIN = 1n << 12n;

describe('requests of a real kubelet', () => {
  let directory = '';
  before(() => {
    directory = mkdtempSync(join(tmpdir(), 'cribus-kubelet-'));
    chmodSync(directory, 0o755);
    for (const each of ['besteffort', 'burstable']) detectCgroups().create(`${CGROUP}/${each}`);
  });
  after(() => {
    detectCgroups().remove(CGROUP);
    rmSync(directory, { recursive: true });
  });
  const suite = stackSuite();
  const recorded = (name: string): Recorded =>
    recordedPod(name, {
      directory,
      cgroup: CGROUP,
      imageId: suite.imageId,
      userSpecifiedImage: suite.image,
    });
  const ended = (containerId: string) =>
    eventually(`the end of ${containerId}`, async () => {
      const status = await containerStatus(suite.cri, containerId);
      return status.state === ContainerState.CONTAINER_EXITED ? status : undefined;
    });
  /** The lines that a container wrote until its end. */
  const outputOf = async (pod: Recorded) => {
    const { containerId, logPath } = await play(suite, pod);
    await ended(containerId);
    const pieces = (await readLog(logPath)).map(({ tag, text }) =>
      tag === 'P' ? text : `${text}\n`,
    );
    return pieces.join('').trimEnd().split('\n');
  };

  it('runs a plain pod with its environment, its hosts file and its image by id', async () => {
    const pod = recorded('podrun');
    const { containerId } = await play(suite, pod);
    const status = await containerStatus(suite.cri, containerId);
    assert.equal(status.image?.image, suite.image, 'the name that the person wrote');
    assert.equal(status.imageId, suite.imageId);
    assert.deepEqual(status.labels, pod.create.config?.labels);
    assert.deepEqual(status.annotations, pod.create.config?.annotations);
    assert.deepEqual(
      status.mounts.map(({ containerPath, hostPath }) => [containerPath, hostPath]),
      pod.create.config?.mounts.map(({ containerPath, hostPath }) => [containerPath, hostPath]),
    );
    const { stdout } = await exec(suite.cri, containerId, ['sh', '-c', 'env; cat /etc/hosts']);
    assert.match(stdout, /^KUBERNETES_SERVICE_HOST=10\.96\.0\.1$/m);
    assert.match(stdout, /^# Kubernetes-managed hosts file\.$/m);
    const message = status.mounts.find((mount) => mount.containerPath === '/dev/termination-log');
    await exec(suite.cri, containerId, ['sh', '-c', 'echo the end > /dev/termination-log']);
    assert.equal(readFileSync(message?.hostPath ?? '', 'utf8'), 'the end\n');
  });

  it('filters pods by the uid label as an on-demand relist does', async () => {
    const { podId, config } = await play(suite, recorded('podrun'));
    await play(suite, recorded('att'));
    const key = 'io.kubernetes.pod.uid';
    const filter = { labelSelector: { [key]: config.labels[key] ?? '' } };
    const { items } = await suite.cri.call(
      'listPodSandbox',
      ListPodSandboxRequest.fromPartial({ filter }),
    );
    assert.deepEqual(
      items.map(({ id }) => id),
      [podId],
    );
  });

  it('keeps a container with stdin and a terminal running', async () => {
    const { containerId } = await play(suite, recorded('atttty'));
    const { stdout } = await exec(suite.cri, containerId, ['readlink', '/proc/1/fd/0']);
    assert.match(stdout, /^\/dev\/(pts\/0|console)$/m);
  });

  it('gives exactly the capability that is added to none', async () => {
    const lines = await outputOf(recorded('capa'));
    const set = (name: string) => lines.find((line) => line.startsWith(`${name}:`))?.split('\t')[1];
    for (const name of ['CapPrm', 'CapEff', 'CapBnd']) {
      assert.equal(BigInt(`0x${set(name)}`), NET_ADMIN, name);
    }
    assert.equal(BigInt(`0x${set('CapAmb')}`), 0n, 'an added capability is not ambient');
  });

  it('shows the downward API in environment and files', async () => {
    const pod = recorded('dapi');
    const volume = pod.create.config?.mounts[0]?.hostPath ?? '';
    writeFileSync(join(volume, 'labels'), 't="dapi"');
    writeFileSync(join(volume, 'cpu'), '2');
    const [environment, labels, cpu] = await outputOf(pod);
    assert.match(environment ?? '', / dapi acc-913c09 /);
    assert.deepEqual([labels, cpu], ['t="dapi"', '2']);
  });

  it('writes resolv.conf as the DNS configuration says', async () => {
    const lines = await outputOf(recorded('dnsn'));
    assert.deepEqual(lines, ['search a.b', 'nameserver 1.2.3.4', 'options ndots:3']);
  });

  it('sets the hostname that differs from the name of the pod', async () => {
    const lines = await outputOf(recorded('hn'));
    assert.equal(lines[0], 'myhost');
    assert.equal(lines.at(-1), 'myhost');
  });

  it('shares the network of the host with hostNetwork, and reports no address of its own', async () => {
    const { containerId, ip } = await play(suite, recorded('hostnet'));
    assert.equal(ip, '');
    const ofHost = readlinkSync('/proc/self/ns/net');
    assert.equal(readlinkSync(`/proc/${await pidOf(suite.cri, containerId)}/ns/net`), ofHost);
    const { stdout } = await exec(suite.cri, containerId, ['sh', '-c', 'hostname; echo $HOSTNAME']);
    assert.equal(stdout, `${hostname()}\n${hostname()}\n`);
  });

  it('shares the processes of the host with hostPID', async () => {
    const { containerId } = await play(suite, recorded('hostpid'));
    const { stdout } = await exec(suite.cri, containerId, ['ls', '/proc']);
    assert.ok(stdout.split('\n').includes(String(process.pid)));
  });

  it('answers at a hostPort on 127.0.0.1 and at the port of the pod IP', async () => {
    const pod = recorded('hport');
    const port = await freePort();
    const [mapping] = pod.run.config?.portMappings ?? [];
    assert.ok(mapping !== undefined);
    mapping.hostPort = port;
    const { ip } = await play(suite, pod);
    for (const url of [`http://${ip}:8080/`, `http://127.0.0.1:${port}/`]) {
      assert.match(await eventually(url, () => fetchText(url)), /hello from a pod/);
    }
  });

  it('mounts an image that a pod names as a volume, whole and by sub path, and tells which it was', async () => {
    const pod = recorded('imgvol');
    const model: TarEntry = {
      kind: 'file',
      path: 'data/model.txt',
      mode: 0o644,
      data: Buffer.from('weights\n'),
    };
    const { url, host } = suite.registry;
    await pushImage(buildImage({ layers: [[model]], config: {} }), ['1'], {
      registry: url,
      repository: 'test/data',
      signal: AbortSignal.timeout(30_000),
    });
    const id = await pull(suite.cri, `${host}/test/data:1`);
    for (const { image } of pod.create.config?.mounts ?? []) {
      if (image !== undefined) image.image = id;
    }
    const { containerId, logPath } = await play(suite, pod);
    const { mounts } = await ended(containerId);
    assert.deepEqual(
      (await readLog(logPath)).map(({ text }) => text),
      ['weights', 'weights', 'touch: /v/x: Read-only file system'],
    );
    assert.deepEqual(
      mounts.map(({ image, imageSubPath }) => [image?.image, image?.imageRef, imageSubPath]),
      [
        [id, id, ''],
        [id, id, 'data'],
        [undefined, undefined, ''],
        [undefined, undefined, ''],
      ],
    );
  });

  it('runs a pod in a user namespace, whose root writes its volume and its termination message', async () => {
    const { containerId } = await play(suite, recorded('userns'));
    const { stdout } = await exec(suite.cri, containerId, ['cat', '/proc/self/uid_map']);
    assert.equal(stdout.trim().replaceAll(/\s+/g, ' '), '0 4145283072 65536');
    const script = 'stat -c %u /e/f /etc/hosts; echo the end > /dev/termination-log';
    assert.equal((await exec(suite.cri, containerId, ['sh', '-c', script])).stdout, '0\n0\n');
    const { mounts } = await containerStatus(suite.cri, containerId);
    const hostPath = (path: string) =>
      mounts.find(({ containerPath }) => containerPath === path)?.hostPath ?? '';
    assert.equal(statSync(join(hostPath('/e'), 'f')).uid, 0);
    assert.equal(readFileSync(hostPath('/dev/termination-log'), 'utf8'), 'the end\n');
  });

  it('sets the limits of a container in its cgroup below the one of the kubelet', async () => {
    const pod = recorded('lim');
    const { containerId } = await play(suite, pod);
    const parent = pod.run.config?.linux?.cgroupParent ?? '';
    const lines = readFileSync(`/proc/${await pidOf(suite.cri, containerId)}/cgroup`, 'utf8');
    assert.ok(lines.includes(`${parent}/`) && lines.includes(containerId), lines);
    const read = (v1: string, v2: string) => {
      const file = [`/sys/fs/cgroup/${v1}`, `/sys/fs/cgroup/${v2}`]
        .map((each) => join(dirname(each), parent, containerId, each.split('/').at(-1) ?? ''))
        .find(existsSync);
      return readFileSync(file ?? '', 'utf8').trim();
    };
    assert.equal(read('memory/memory.limit_in_bytes', 'memory.max'), '67108864');
    if (detectCgroups().version === 'v1') {
      assert.equal(read('cpu/cpu.shares', ''), '256');
      assert.equal(read('cpu/cpu.cfs_quota_us', ''), '50000');
      assert.equal(read('cpu/cpu.cfs_period_us', ''), '100000');
    } else assert.equal(read('', 'cpu.max'), '50000 100000');
    const { resources } = await containerStatus(suite.cri, containerId);
    assert.equal(resources?.linux?.memoryLimitInBytes, 67108864n);
    assert.equal(resources?.linux?.cpuQuota, 50000n);
  });

  it('limits a container of a pod with resources that its containers share', async () => {
    const { containerId } = await play(suite, recorded('plr'));
    const { resources } = await containerStatus(suite.cri, containerId);
    assert.deepEqual(
      [
        resources?.linux?.cpuShares,
        resources?.linux?.cpuQuota,
        resources?.linux?.memoryLimitInBytes,
      ],
      [307n, 30000n, 67108864n],
    );
  });

  it('leaves /proc of a pod in a user namespace whole that asks for it unmasked', async () => {
    assert.deepEqual(await outputOf(recorded('pmu')), ['0']);
  });

  it('lets a container for debugging see the processes of another', async () => {
    const pod = recorded('eph');
    const { podId, containerId: targetId, config } = await play(suite, pod);
    const namespaceOptions = { pid: NamespaceMode.TARGET, targetId };
    const linux = { securityContext: { namespaceOptions } };
    const container = shellContainer(suite.image, 'sleep 1000', { name: 'debug', linux });
    const debug = await startContainer(suite.cri, podId, container, config);
    const { stdout } = await exec(suite.cri, debug, ['cat', '/proc/1/cmdline']);
    assert.ok(stdout.includes('sleep 45678'), stdout);
  });

  it('carries later mounts of the host into a container with HOST_TO_CONTAINER', async () => {
    const pod = recorded('mprop');
    const volume = pod.create.config?.mounts[0]?.hostPath ?? '';
    execFileSync('mount', ['--bind', volume, volume]);
    try {
      execFileSync('mount', ['--make-shared', volume]);
      const { containerId, podId } = await play(suite, pod);
      const [mount] = (await containerStatus(suite.cri, containerId)).mounts;
      assert.equal(mount?.propagation, MountPropagation.PROPAGATION_HOST_TO_CONTAINER);
      mkdirSync(join(volume, 'late'));
      execFileSync('mount', ['-t', 'tmpfs', 'late', join(volume, 'late')]);
      writeFileSync(join(volume, 'late', 'file'), 'seen');
      const { stdout } = await exec(suite.cri, containerId, ['cat', '/v/late/file']);
      assert.equal(stdout, 'seen');
      await suite.cri.call('stopPodSandbox', { podSandboxId: podId });
    } finally {
      execFileSync('umount', ['-R', volume]);
    }
  });

  it('makes a recursive read-only mount read-only down to its submounts', async () => {
    const pod = recorded('rro');
    const volume = pod.create.config?.mounts[0]?.hostPath ?? '';
    mkdirSync(join(volume, 'sub'));
    execFileSync('mount', ['-t', 'tmpfs', 'sub', join(volume, 'sub')]);
    try {
      const { containerId, podId } = await play(suite, pod);
      const [mount] = (await containerStatus(suite.cri, containerId)).mounts;
      assert.deepEqual([mount?.readonly, mount?.recursiveReadOnly], [true, true]);
      for (const file of ['/v/x', '/v/sub/x']) {
        const { stderr, exitCode } = await exec(suite.cri, containerId, ['touch', file]);
        assert.equal(exitCode, 1);
        assert.match(stderr, /Read-only file system/);
      }
      await suite.cri.call('stopPodSandbox', { podSandboxId: podId });
    } finally {
      execFileSync('umount', [join(volume, 'sub')]);
    }
  });

  it('lets a privileged container mount, see devices and write sysctls, with all capabilities there are', async () => {
    const pod = recorded('priv');
    const command = pod.create.config?.command ?? [];
    command[2] = (command[2] ?? '').replace('/mnt', '/tmp');
    const lines = await outputOf(pod);
    for (const word of ['mounted', 'sys-rw', 'full']) assert.ok(lines.includes(word), word);
    const own = readFileSync('/proc/self/status', 'utf8');
    const bounding = (text: string) => /^CapBnd:\s*(\S+)$/m.exec(text)?.[1];
    const effective = lines.find((line) => line.startsWith('CapEff:'))?.split('\t')[1];
    assert.equal(effective, bounding(own));
    assert.ok(lines.some((line) => / \/sys sysfs rw/.test(line)));
  });

  it('runs a guaranteed pod with overhead, clamping an oom_score_adj that the kernel refuses', async () => {
    const pod = recorded('rc');
    const { containerId, podId } = await play(suite, pod);
    const adjust = Number(
      readFileSync(`/proc/${await pidOf(suite.cri, containerId)}/oom_score_adj`, 'utf8'),
    );
    const own = Number(readFileSync('/proc/self/oom_score_adj', 'utf8'));
    assert.ok(adjust >= -997 && adjust <= Math.max(own, -997), `${adjust}`);
    const { status } = await suite.cri.call('podSandboxStatus', {
      podSandboxId: podId,
      verbose: false,
    });
    assert.equal(status?.runtimeHandler, 'runc');
  });

  it('runs as the user, group and supplemental groups that are asked for', async () => {
    const pod = recorded('runas');
    chmodSync(pod.create.config?.mounts[0]?.hostPath ?? '', 0o777);
    const lines = await outputOf(pod);
    assert.deepEqual(lines, ['1234', '3000', '3000 2000 4000', '1234 3000', '777']);
  });

  it('adds no groups of the image under the strict policy, and reports the user', async () => {
    const { containerId, logPath } = await play(suite, recorded('sgs'));
    await eventually('output', async () => (await readLog(logPath)).length > 0);
    assert.equal((await readLog(logPath))[0]?.text, '1000 4000');
    const { user } = await containerStatus(suite.cri, containerId);
    assert.deepEqual(user?.linux, { uid: 1000n, gid: 1000n, supplementalGroups: [1000n, 4000n] });
  });

  it('applies a seccomp profile of the node', async () => {
    const pod = recorded('scl');
    const profile = pod.create.config?.linux?.securityContext?.seccomp?.localhostRef ?? '';
    mkdirSync(dirname(profile), { recursive: true });
    const names = ['mkdir', 'mkdirat'];
    const syscalls = [{ names, action: 'SCMP_ACT_ERRNO' }];
    writeFileSync(profile, JSON.stringify({ defaultAction: 'SCMP_ACT_ALLOW', syscalls }));
    const lines = await outputOf(pod);
    assert.deepEqual(lines, ["mkdir: can't create directory '/tmp/x': Operation not permitted"]);
  });

  it('shares the processes of a pod below a reaping init', async () => {
    const { containerId } = await play(suite, recorded('sharepid'));
    const { stdout } = await exec(suite.cri, containerId, ['ps', '-o', 'pid,args']);
    const rows = stdout
      .trim()
      .split('\n')
      .map((line) => line.trim());
    assert.ok(
      rows.some((row) => row.startsWith('1 ') && !row.includes('sleep')),
      stdout,
    );
    assert.ok(
      rows.some((row) => !row.startsWith('1 ') && row.includes('sleep 34567')),
      stdout,
    );
    await exec(suite.cri, containerId, ['sh', '-c', '(sleep 0.1 &) ; true']);
    await eventually('orphans are reaped', async () => {
      const list = await exec(suite.cri, containerId, ['ps', '-o', 'stat,args']);
      return !/^Z/m.test(list.stdout) && !/sleep 0\.1/.test(list.stdout);
    });
  });

  it('stops by the stop signal of the image, and says which it is', async () => {
    const { cri, registry } = suite;
    const config = { Env: ['PATH=/bin'], StopSignal: 'SIGUSR1' };
    await pushImage(buildImage({ layers: [busyboxLayer()], config }), ['1'], {
      registry: registry.url,
      repository: 'test/cfg',
      signal: AbortSignal.timeout(30_000),
    });
    const image = `${registry.host}/test/cfg:1`;
    const imageId = await pull(cri, image);
    const pod = recordedPod('stopsig', {
      directory,
      cgroup: CGROUP,
      imageId,
      userSpecifiedImage: image,
    });
    const { containerId } = await play(suite, pod);
    assert.equal((await containerStatus(cri, containerId)).stopSignal, Signal.SIGUSR1);
    await new Promise((resolve) => setTimeout(resolve, 300));
    await cri.call('stopContainer', { containerId, timeout: 30n });
    const volume = pod.create.config?.mounts[0]?.hostPath ?? '';
    assert.equal(readFileSync(join(volume, 'o'), 'utf8'), 'usr1\n');
    assert.equal((await containerStatus(cri, containerId)).exitCode, 0);
  });

  it('sets the sysctls of a pod in its own namespaces only', async () => {
    const ofHost = () => readFileSync('/proc/sys/net/ipv4/tcp_syncookies', 'utf8');
    const before = ofHost();
    assert.deepEqual(await outputOf(recorded('sysctl')), ['0', '1']);
    assert.equal(ofHost(), before);
  });

  it('shares a volume between the containers of a pod and stops a sidecar in time', async () => {
    const pod = recorded('sidecar');
    const { containerId, logPath } = await play(suite, pod);
    const volume = pod.create.config?.mounts[0]?.hostPath ?? '';
    await eventually('the sidecar is up', async () => existsSync(join(volume, 'log')));
    await suite.cri.call('stopContainer', { containerId, timeout: 30n });
    assert.deepEqual(
      (await readLog(logPath)).map(({ text }) => text),
      ['side-term'],
    );
  });
});
