// What containers may do: users, capabilities, seccomp, privileges, masked and read-only paths; their
// mounts; and which namespaces of pod and host they share.

import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdirSync, readFileSync, readlinkSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import {
  MountPropagation,
  NamespaceMode,
  SecurityProfile_ProfileType,
} from '@cribus/contracts/gen/cri/v1/api.ts';
import { describe, it } from 'mocha';
import { containerStatus, exec, runPod, shellContainer, startContainer } from './harness/pods.ts';
import { HOST_KERNEL_HANDLERS, stackSuite } from './harness/suite.ts';

const SLEEP = "trap 'exit 0' TERM; while :; do sleep 0.05; done";
const { RuntimeDefault, Unconfined } = SecurityProfile_ProfileType;
const POD = { namespaceOptions: { pid: NamespaceMode.CONTAINER } };
type Security = NonNullable<
  NonNullable<NonNullable<Parameters<typeof shellContainer>[2]>['linux']>['securityContext']
>;

for (const handler of HOST_KERNEL_HANDLERS) {
  describe(`what containers may do under ${handler}`, () => {
    const suite = stackSuite();
    const run = (security: Security) =>
      runPod(suite.stack, {
        image: suite.image,
        script: SLEEP,
        handler,
        pod: { linux: { securityContext: { ...POD, privileged: security.privileged ?? false } } },
        container: { linux: { securityContext: security } },
      });
    const shell = async (containerId: string, script: string) => {
      const { stdout, stderr } = await exec(suite.cri, containerId, ['sh', '-c', script]);
      return (stdout + stderr).trim();
    };
    const field = async (containerId: string, name: string) =>
      (await shell(containerId, `grep ^${name}: /proc/1/status`)).split('\t')[1] ?? '';

    it(`runs as a user by name with the groups of the image, under ${handler}`, async () => {
      const { containerId } = await run({ runAsUsername: 'app', supplementalGroups: [5000n] });
      assert.equal(await shell(containerId, 'id -un; id -g; id -G'), 'app\n1000\n1000 2000 5000');
      const { user } = await containerStatus(suite.cri, containerId);
      assert.deepEqual(user?.linux, {
        uid: 1000n,
        gid: 1000n,
        supplementalGroups: [1000n, 2000n, 5000n],
      });
    });

    it(`mounts the root filesystem read-only only if asked, under ${handler}`, async () => {
      const [sealed, open] = await Promise.all([run({ readonlyRootfs: true }), run({})]);
      assert.match(await shell(sealed.containerId, 'touch /x'), /Read-only file system/);
      assert.equal(await shell(open.containerId, 'touch /x && echo done'), 'done');
    });

    it(`sets no_new_privs only if asked, under ${handler}`, async () => {
      const [bound, free] = await Promise.all([run({ noNewPrivs: true }), run({})]);
      assert.equal(await field(bound.containerId, 'NoNewPrivs'), '1');
      assert.equal(await field(free.containerId, 'NoNewPrivs'), '0');
    });

    it(`filters system calls by default profile only, as no profile means unconfined, under ${handler}`, async () => {
      const seccomp = { profileType: RuntimeDefault };
      const pods = await Promise.all([
        run({ seccomp }),
        run({ seccomp: { profileType: Unconfined } }),
        run({}),
        run({ seccomp, privileged: true }),
      ]);
      const modes = await Promise.all(pods.map(({ containerId }) => field(containerId, 'Seccomp')));
      assert.deepEqual(modes, ['2', '0', '0', '0']);
    });

    it(`adds and drops capabilities, of which none becomes ambient unasked, under ${handler}`, async () => {
      const sets = async (security: Security) => {
        const { containerId } = await run(security);
        const names = ['CapEff', 'CapBnd', 'CapAmb'];
        return Promise.all(
          names.map(async (name) => BigInt(`0x${await field(containerId, name)}`)),
        );
      };
      const [, bounding = 0n] = await sets({});
      const netAdmin = 1n << 12n;
      const chown = 1n << 0n;
      assert.equal(bounding & netAdmin, 0n, 'not among the default ones');
      assert.deepEqual(
        await sets({
          capabilities: { addCapabilities: ['NET_ADMIN'], dropCapabilities: ['CHOWN'] },
        }),
        [(bounding | netAdmin) & ~chown, (bounding | netAdmin) & ~chown, 0n],
      );
      assert.deepEqual(await sets({ capabilities: { dropCapabilities: ['ALL'] } }), [0n, 0n, 0n]);
      const own = readFileSync('/proc/self/status', 'utf8');
      const all = BigInt(`0x${/^CapBnd:\s*(\S+)$/m.exec(own)?.[1]}`);
      assert.equal((await sets({ capabilities: { addCapabilities: ['ALL'] } }))[0], all);
    });

    it(`masks paths and makes others read-only, but not for the privileged, under ${handler}`, async () => {
      const paths = {
        maskedPaths: ['/proc/timer_list', '/etc/group'],
        readonlyPaths: ['/proc/sys'],
      };
      const [plain, privileged] = await Promise.all([
        run(paths),
        run({ ...paths, privileged: true }),
      ]);
      const look =
        'wc -c < /etc/group; touch /proc/sys/kernel/domainname 2>&1; mount -t tmpfs t /tmp';
      const seen = await shell(plain.containerId, look);
      assert.match(seen, /^0\n.*(permission denied|not permitted|read-only)/is);
      const free = await shell(privileged.containerId, `${look} && echo mounted`);
      assert.match(free, /^[1-9]\d*\n.*mounted$/s);
    });

    it(`shares the namespaces of the pod or of the host as asked, under ${handler}`, async () => {
      const { cri, stack, image } = suite;
      const inode = (pid: string | number, kind: string) => readlinkSync(`/proc/${pid}/ns/${kind}`);
      const pidOf = async (containerId: string) => {
        const { info } = await cri.call('containerStatus', { containerId, verbose: true });
        return (JSON.parse(info['info'] ?? '') as { pid: number }).pid;
      };
      const options = (namespaceOptions: object) => ({
        linux: { securityContext: { namespaceOptions } },
      });
      const own = options({ pid: NamespaceMode.CONTAINER });
      const plain = await runPod(stack, {
        image,
        script: SLEEP,
        handler,
        pod: own,
        container: own,
      });
      const second = await startContainer(
        cri,
        plain.podId,
        shellContainer(image, SLEEP, { name: 'second', ...own }),
        plain.config,
      );
      const target = await startContainer(
        cri,
        plain.podId,
        shellContainer(image, SLEEP, {
          name: 'target',
          ...options({ pid: NamespaceMode.TARGET, targetId: second }),
        }),
        plain.config,
      );
      const [a, b, c] = await Promise.all([plain.containerId, second, target].map(pidOf));
      assert.ok(a !== undefined && b !== undefined && c !== undefined);
      for (const kind of ['net', 'ipc', 'uts']) {
        assert.equal(inode(a, kind), inode(b, kind), `${kind} is of the pod`);
        assert.notEqual(inode(a, kind), inode('self', kind), `${kind} is not of the host`);
      }
      assert.notEqual(inode(a, 'pid'), inode(b, 'pid'));
      assert.equal(inode(b, 'pid'), inode(c, 'pid'), 'a target is joined');
      const { NODE } = NamespaceMode;
      const ofHost = options({ network: NODE, pid: NODE, ipc: NODE });
      const host = await runPod(stack, {
        image,
        script: SLEEP,
        handler,
        pod: { ...ofHost, hostname: '' },
        container: ofHost,
      });
      const pid = await pidOf(host.containerId);
      for (const kind of ['net', 'ipc', 'uts', 'pid']) {
        assert.equal(inode(pid, kind), inode('self', kind), `${kind} is of the host`);
      }
      assert.equal(host.ip, '');
      const { status } = await cri.call('podSandboxStatus', {
        podSandboxId: host.podId,
        verbose: false,
      });
      assert.equal(status?.linux?.namespaces?.options?.network, NODE);
    });

    it(`follows a symlink, binds files, read-only and with propagation to the host, under ${handler}`, async () => {
      const { stack, cri, image } = suite;
      const volume = join(stack.root, `volume-${handler}`);
      mkdirSync(join(volume, 'real'), { recursive: true });
      writeFileSync(join(volume, 'real', 'file'), 'through a symlink');
      symlinkSync('real', join(volume, 'link'));
      execFileSync('mount', ['--bind', volume, volume]);
      try {
        execFileSync('mount', ['--make-shared', volume]);
        const { containerId, podId } = await runPod(stack, {
          image,
          script: SLEEP,
          handler,
          pod: { linux: { securityContext: { ...POD, privileged: true } } },
          container: {
            mounts: [
              { containerPath: '/link', hostPath: join(volume, 'link'), readonly: true },
              { containerPath: '/one', hostPath: join(volume, 'real', 'file') },
              { containerPath: '/both', hostPath: volume, propagation: 2 },
            ],
            linux: { securityContext: { privileged: true } },
          },
        });
        assert.equal(await shell(containerId, 'cat /link/file'), 'through a symlink');
        assert.match(await shell(containerId, 'touch /link/x'), /Read-only file system/);
        await shell(containerId, 'echo changed > /one; mkdir /both/m; mount -t tmpfs m /both/m');
        assert.equal(readFileSync(join(volume, 'real', 'file'), 'utf8'), 'changed\n');
        assert.match(readFileSync('/proc/self/mountinfo', 'utf8'), new RegExp(`${volume}/m `));
        const { mounts } = await containerStatus(cri, containerId);
        assert.deepEqual(
          mounts.map((one) => [one.containerPath, one.readonly, one.propagation]),
          [
            ['/link', true, MountPropagation.PROPAGATION_PRIVATE],
            ['/one', false, MountPropagation.PROPAGATION_PRIVATE],
            ['/both', false, MountPropagation.PROPAGATION_BIDIRECTIONAL],
          ],
        );
        await cri.call('stopPodSandbox', { podSandboxId: podId });
      } finally {
        execFileSync('umount', ['-R', volume]);
        rmSync(volume, { recursive: true });
      }
    });

    it(`gives the pod its hostname, hosts and resolv.conf, and a shared memory of its own, under ${handler}`, async () => {
      const { stack, image } = suite;
      const pod = await runPod(stack, {
        image,
        script: SLEEP,
        handler,
        pod: {
          name: 'named',
          dnsConfig: { servers: ['10.1.2.3'], searches: ['svc.local'], options: ['ndots:5'] },
        },
      });
      const files = await shell(pod.containerId, 'hostname; cat /etc/resolv.conf /etc/hostname');
      assert.equal(files, 'named\nsearch svc.local\nnameserver 10.1.2.3\noptions ndots:5\nnamed');
      assert.match(
        await shell(pod.containerId, 'cat /etc/hosts'),
        new RegExp(`^${pod.ip}\\s+named$`, 'm'),
      );
      assert.match(await shell(pod.containerId, 'df -k /dev/shm | tail -1'), /\b65536\b/);
    });
  });
}
