// Pods with a user namespace: whose root is another user of the host, for the files of the image, the
// volumes and everything that the pod shares.

import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import {
  chmodSync,
  existsSync,
  mkdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import {
  ListContainersRequest,
  MountPropagation,
  NamespaceMode,
  PodSandboxConfig,
} from '@cribus/contracts/gen/cri/v1/api.ts';
import { afterEach, describe, it } from 'mocha';
import {
  containerStatus,
  exec,
  pidOf,
  runPod,
  shellContainer,
  startContainer,
} from './harness/pods.ts';
import { eventually } from './harness/stack.ts';
import { HOST_KERNEL_HANDLERS, stackSuite } from './harness/suite.ts';

const SLEEP = "trap 'exit 0' TERM; while :; do sleep 0.05; done";
/** As the kubelet hands them out: beyond the signed 32 bits. */
const HOST_ID = 4_145_283_072;
const IDS = [{ containerId: 0, hostId: HOST_ID, length: 65_536 }];
const MAPPED = { uidMappings: IDS, gidMappings: IDS };
const { POD, NODE, CONTAINER } = NamespaceMode;
const HOST_TO_CONTAINER = MountPropagation.PROPAGATION_HOST_TO_CONTAINER;
const BIDIRECTIONAL = MountPropagation.PROPAGATION_BIDIRECTIONAL;

/** A part that was killed is started again after a second or more. */
const RESTART_MS = 30_000;

type Options = Parameters<typeof runPod>[1];

for (const handler of HOST_KERNEL_HANDLERS) {
  describe(`user namespaces under ${handler}`, () => {
    const suite = stackSuite();
    const made: string[] = [];
    afterEach('nothing is left where roots of pods reach their root filesystems', () => {
      for (const id of made.splice(0)) assert.ok(!existsSync(join('/run/cribus.rootfs', id)), id);
    });
    const options = (more: object = {}) => ({
      linux: {
        securityContext: {
          namespaceOptions: {
            pid: CONTAINER,
            usernsOptions: { mode: POD, uids: IDS, gids: IDS },
            ...more,
          },
        },
      },
    });
    const run = async (more: Partial<Options> = {}) => {
      const pod = await runPod(suite.stack, {
        image: suite.image,
        script: SLEEP,
        handler,
        pod: options(),
        container: options(),
        ...more,
      });
      made.push(pod.podId, pod.containerId);
      return pod;
    };
    const shell = async (containerId: string, script: string) => {
      const { stdout, stderr } = await exec(suite.cri, containerId, ['sh', '-c', script]);
      return (stdout + stderr).trim().replaceAll(/[ \t]+/g, ' ');
    };

    const podOf = async (podSandboxId: string) => {
      const { status } = await suite.cri.call('podSandboxStatus', { podSandboxId, verbose: false });
      return PodSandboxConfig.fromPartial({ metadata: status?.metadata });
    };

    it(`makes root of a pod another user of the host, under ${handler}`, async () => {
      const { containerId } = await run();
      assert.equal(
        await shell(containerId, 'cat /proc/self/uid_map /proc/self/gid_map; id -u'),
        `0 ${HOST_ID} 65536\n 0 ${HOST_ID} 65536\n0`,
      );
      assert.equal(statSync(`/proc/${await pidOf(suite.cri, containerId)}`).uid, HOST_ID);
      assert.equal(await shell(containerId, 'stat -c %u:%g / /bin /bin/sh'), '0:0\n0:0\n0:0');
      assert.equal(await shell(containerId, 'echo 1 >> /etc/passwd; touch /x; stat -c %u /x'), '0');
    });

    it(`maps volumes, single files and image volumes to the pod's root, under ${handler}`, async () => {
      const volume = join(suite.stack.root, `volume-${handler}`);
      const at = (name: string) => join(volume, name);
      mkdirSync(volume, { mode: 0o700 });
      for (const name of ['termination-log', 'plain']) writeFileSync(at(name), name);
      chmodSync(at('termination-log'), 0o600);
      const { containerId } = await run({
        container: {
          ...options(),
          mounts: [
            { containerPath: '/e', hostPath: volume, ...MAPPED },
            { containerPath: '/c', hostPath: volume, readonly: true, ...MAPPED },
            { containerPath: '/dev/log', hostPath: at('termination-log'), ...MAPPED },
            { containerPath: '/plain', hostPath: at('plain') },
            { containerPath: '/i', image: { image: suite.image }, readonly: true, ...MAPPED },
          ],
        },
      });
      assert.equal(
        await shell(containerId, 'stat -c %u:%g /e /c /dev/log /plain /i /i/bin'),
        '0:0\n0:0\n0:0\n65534:65534\n0:0\n0:0',
      );
      assert.equal(await shell(containerId, 'echo said > /dev/log; echo 1 > /e/made'), '');
      assert.match(await shell(containerId, 'touch /c/x; touch /plain'), /Read-only.*denied/s);
      assert.match(await shell(containerId, 'touch /i/x'), /Read-only/);
      assert.equal(readFileSync(at('termination-log'), 'utf8'), 'said\n');
      assert.equal(statSync(at('made')).uid, 0, "root's on the host's side of the volume");
      const mounts = readFileSync('/proc/self/mountinfo', 'utf8');
      assert.doesNotMatch(mounts, new RegExp(`${containerId}/mapped|cribus.rootfs`));
      rmSync(volume, { recursive: true });
    });

    it(`receives later mounts of the host in a mapped volume, under ${handler}`, async () => {
      const volume = join(suite.stack.root, `shared-${handler}`);
      mkdirSync(join(volume, 'later'), { recursive: true });
      execFileSync('mount', ['--bind', volume, volume]);
      try {
        execFileSync('mount', ['--make-shared', volume]);
        const mount = {
          containerPath: '/v',
          hostPath: volume,
          propagation: HOST_TO_CONTAINER,
          ...MAPPED,
        };
        const pod = await run({ container: { ...options(), mounts: [mount] } });
        execFileSync('mount', ['-t', 'tmpfs', '-o', 'mode=1751', 'later', join(volume, 'later')]);
        assert.equal(await shell(pod.containerId, 'stat -c %a /v/later; stat -c %u /v'), '1751\n0');
        await suite.cri.call('stopPodSandbox', { podSandboxId: pod.podId });
        assert.equal(statSync(join(volume, 'later')).mode & 0o7777, 0o1751, 'the host keeps it');
      } finally {
        execFileSync('umount', ['-R', volume]);
        rmSync(volume, { recursive: true });
      }
    });

    it(`gives the pod's root what every pod's root has, under ${handler}`, async () => {
      const pod = {
        name: 'mapped',
        dnsConfig: { servers: ['10.1.2.3'], searches: [], options: [] },
        ...options(),
      };
      pod.linux = { ...pod.linux, ...{ sysctls: { 'kernel.shm_rmid_forced': '1' } } };
      const { containerId, ip, podId } = await run({ pod });
      assert.equal(
        await shell(containerId, 'hostname; cat /etc/resolv.conf /proc/sys/kernel/shm_rmid_forced'),
        'mapped\nnameserver 10.1.2.3\n1',
      );
      const writable = [
        'echo 10.9.9.9 other >> /etc/hosts && tail -n 1 /etc/hosts',
        'echo shm > /dev/shm/x && stat -c %a:%u /dev/shm',
        'stat -c %u /sys/class/net/eth0 /proc/1; stat -c %a /dev/mqueue',
        'echo 1 > /dev/null && head -c 1 /dev/zero | wc -c',
        '(nc -l -p 80 >/dev/null & sleep 0.1; netstat -ltn | grep -c :80; kill $!)',
        'cat /proc/sys/net/ipv4/ping_group_range',
      ];
      assert.equal(
        await shell(containerId, writable.join('; ')),
        '10.9.9.9 other\n1777:0\n0\n0\n1777\n1\n1\n0 65535',
      );
      assert.match(ip, /^\d+\.\d+\.\d+\.\d+$/);
      const second = await startContainer(
        suite.cri,
        podId,
        shellContainer(suite.image, SLEEP, { name: 'second', ...options() }),
        await podOf(podId),
      );
      assert.equal(
        await shell(second, 'cat /dev/shm/x; ip -4 addr show eth0 | grep -c inet'),
        'shm\n1',
      );
    });

    it(`runs as a user of the image in there, and refuses one that is not mapped, under ${handler}`, async () => {
      const security = (more: object) => {
        const { linux } = options();
        return { linux: { securityContext: { ...linux.securityContext, ...more } } };
      };
      const { containerId } = await run({
        container: {
          ...security({ runAsUsername: 'app', supplementalGroups: [5000n] }),
          workingDir: '/made/for/it',
        },
      });
      assert.equal(
        await shell(containerId, 'id -u; id -G; pwd; stat -c %u /made /made/for/it'),
        '1000\n1000 2000 5000\n/made/for/it\n0\n0',
      );
      const { user } = await containerStatus(suite.cri, containerId);
      assert.deepEqual(user?.linux, {
        uid: 1000n,
        gid: 1000n,
        supplementalGroups: [1000n, 2000n, 5000n],
      });
      await assert.rejects(run({ container: security({ runAsUser: { value: 65_536n } }) }), {
        code: 3,
        message: /run_as_user: id 65536 is not mapped in the pod's user namespace/,
      });
    });

    it(`shares process ids under an init that is the pod's root, under ${handler}`, async () => {
      const shared = options({ pid: POD });
      const { containerId, podId } = await run({ pod: shared, container: shared });
      const target = await startContainer(
        suite.cri,
        podId,
        shellContainer(suite.image, SLEEP, {
          name: 'target',
          ...options({ pid: NamespaceMode.TARGET, targetId: containerId }),
        }),
        await podOf(podId),
      );
      assert.match(await shell(target, 'cat /proc/1/cmdline'), /^\/catatonit/);
      assert.equal(await shell(target, 'grep ^Uid /proc/1/status'), 'Uid: 0 0 0 0');
    });

    it(`mixes with privileges, a read-only root filesystem and the host's network, under ${handler}`, async () => {
      const privileged = options();
      const pod = {
        linux: { securityContext: { ...privileged.linux.securityContext, privileged: true } },
      };
      const free = await run({ pod, container: pod });
      assert.equal(await shell(free.containerId, 'mount -t tmpfs t /tmp && stat -c %u /tmp'), '0');
      const sealed = await run({
        container: {
          linux: { securityContext: { ...privileged.linux.securityContext, readonlyRootfs: true } },
        },
      });
      assert.match(
        await shell(sealed.containerId, 'touch /x; touch /etc/hosts'),
        /Read-only.*Read-only/s,
      );
      const ofHost = options({ network: NODE, ipc: NODE });
      const host = await run({ pod: { ...ofHost, hostname: '' }, container: ofHost });
      assert.equal(
        await shell(host.containerId, 'cat /proc/self/uid_map; cat /sys/class/net/lo/mtu; id -u'),
        `0 ${HOST_ID} 65536\n65536\n0`,
      );
      const writable = 'grep " /sys" /proc/mounts | grep -v " /sys/fs/cgroup" | grep -v " ro,"';
      assert.equal(await shell(host.containerId, writable), '', "of the host's /sys");
      const pid = await pidOf(suite.cri, host.containerId);
      for (const kind of ['net', 'ipc', 'uts']) {
        const inode = (of: string | number) => readlinkSync(`/proc/${of}/ns/${kind}`);
        assert.equal(inode(pid), inode('self'), `${kind} is of the host`);
      }
    });

    it(`refuses every mapping that is wrong, of pod, container and mount, and leaves nothing, under ${handler}`, async () => {
      const mapping = (containerId: number, hostId: number, length: number) => [
        { containerId, hostId, length },
      ];
      const user = (uids: object[], gids = uids, mode: NamespaceMode = POD) =>
        options({ usernsOptions: { mode, uids, gids } });
      const pods: [object, RegExp][] = [
        [user([]), /uids must hold exactly one mapping, not 0/],
        [user([...IDS, ...mapping(65_536, 1, 1)]), /exactly one mapping, not 2/],
        [user(IDS, []), /gids must hold exactly one mapping, not 0/],
        [user(IDS, mapping(1, 1000, 1)), /gids must map container id 0/],
        [user(mapping(0, 1000, 0)), /a mapping of length 0/],
        [user(mapping(0, 0, 1000)), /the host's root/],
        [user(mapping(0, 4_294_967_295, 1)), /end beyond 4294967294/],
        [user(mapping(0, 4_000_000_000, 4_000_000_000)), /end beyond 4294967294/],
        [user(IDS, IDS, CONTAINER), /mode must be POD or NODE/],
        [user(IDS, IDS, NamespaceMode.TARGET), /mode must be POD or NODE/],
        [user(IDS, IDS, NODE), /has mappings, but its mode is NODE/],
        [options({ pid: NODE }), /the host's process ids/],
      ];
      for (const [pod, message] of pods) {
        await assert.rejects(run({ pod }), { code: 3, message }, JSON.stringify(pod));
      }
      const volume = { containerPath: '/v', hostPath: suite.stack.root };
      const other = mapping(0, 100_000, 65_536);
      const containers: [object, RegExp][] = [
        [user(other), /userns_options differ from the sandbox's/],
        [user(IDS, other), /userns_options differ/],
        [user([], [], NODE), /userns_options differ/],
        [user(IDS, IDS, CONTAINER), /mode must be POD or NODE/],
        [{ mounts: [{ ...volume, ...MAPPED, uidMappings: other }] }, /other id mappings/],
        [{ mounts: [{ ...volume, uidMappings: IDS }] }, /other id mappings/],
        [{ mounts: [{ ...volume, ...MAPPED, propagation: BIDIRECTIONAL }] }, /out of a user names/],
        [{ mounts: [{ ...volume, propagation: BIDIRECTIONAL }] }, /out of a user namespace/],
      ];
      const mapped = await run({ container: {} });
      const plain = await run({ pod: options({ usernsOptions: undefined }), container: {} });
      const create = async (podSandboxId: string, container: object) =>
        startContainer(
          suite.cri,
          podSandboxId,
          shellContainer(suite.image, SLEEP, { name: 'wrong', ...container }),
          await podOf(podSandboxId),
        );
      for (const [container, message] of containers) {
        const tried = create(mapped.podId, container);
        await assert.rejects(tried, { code: 3, message }, JSON.stringify(container));
      }
      for (const [container, message] of [
        [options(), /userns_options differ/],
        [{ mounts: [{ ...volume, ...MAPPED }] }, /has id mappings, but the pod no user namespace/],
      ] as const) {
        await assert.rejects(create(plain.podId, container), { code: 3, message });
      }
      const unmappable = { containerPath: '/p', hostPath: '/proc/fs', ...MAPPED };
      await assert.rejects(create(mapped.podId, { mounts: [unmappable] }), {
        code: 9,
        message: /the volume \/proc\/fs at \/p can't be mapped .*\(proc\)/,
      });
      const { containers: left } = await suite.cri.call(
        'listContainers',
        ListContainersRequest.fromPartial({}),
      );
      assert.deepEqual(
        left.map(({ id }) => id).sort(),
        [mapped.containerId, plain.containerId].sort(),
      );
    });

    it(`keeps such a pod when its owners are killed, and clears what a create left half done, under ${handler}`, async () => {
      const { stack, cri, image } = suite;
      const pod = await run();
      // As a worker leaves it that is killed while the engine creates a container.
      const id = 'ab'.repeat(32);
      const bundle = join(stack.root, 'run', 'handlers', handler, id);
      const reachable = join('/run/cribus.rootfs', id);
      made.push(id);
      for (const [directory, source] of [
        [join(reachable, 'rootfs'), '/var'],
        [join(bundle, 'mapped', '0'), '/etc'],
        [join(bundle, 'rootfs.layers'), '/var'],
      ] as const) {
        mkdirSync(directory, { recursive: true });
        execFileSync('mount', ['--bind', source, directory]);
      }
      const { parts } = await stack.status();
      for (const { name, pid } of parts) {
        if (/^runtime-|^sandbox-manager/.test(name)) process.kill(pid, 'SIGKILL');
      }
      const swept = async () => !existsSync(bundle);
      await eventually('the half-made container is swept', swept, RESTART_MS);
      assert.ok(!existsSync(reachable));
      assert.ok(existsSync('/etc/passwd') && existsSync('/var/lib'));
      const config = shellContainer(image, SLEEP, { name: 'second', ...options() });
      const second = await eventually(
        'the pod serves again',
        () => startContainer(cri, pod.podId, config, pod.config),
        RESTART_MS,
      );
      made.push(second);
      assert.equal(await shell(second, 'cat /proc/self/uid_map'), `0 ${HOST_ID} 65536`);
      assert.equal(await shell(pod.containerId, 'id -u'), '0');
    });
  });
}

describe('user namespaces under gvisor', () => {
  const suite = stackSuite();
  it('refuses a pod with a user namespace, whose mappings runsc does not show inside', async () => {
    const usernsOptions = { mode: POD, uids: IDS, gids: IDS };
    const pod = { linux: { securityContext: { namespaceOptions: { usernsOptions } } } };
    const { stack, image } = suite;
    await assert.rejects(runPod(stack, { image, script: SLEEP, handler: 'gvisor', pod }), {
      code: 12,
      message: /handler gvisor can't run a pod with a user namespace/,
    });
    const { items } = await suite.cri.call('listPodSandbox', { filter: undefined });
    assert.deepEqual(items, []);
  });
});
