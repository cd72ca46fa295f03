// What containers may do: users, capabilities, seccomp, privileges, masked and read-only paths, and which
// namespaces of pod and host they share.

import assert from 'node:assert/strict';
import { existsSync, readFileSync, readlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import {
  ListContainersRequest,
  NamespaceMode,
  SecurityProfile_ProfileType,
  SupplementalGroupsPolicy,
} from '@cribus/contracts/gen/cri/v1/api.ts';
import { describe, it } from 'mocha';
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
const { RuntimeDefault, Unconfined, Localhost } = SecurityProfile_ProfileType;
const HAS_APPARMOR = existsSync('/sys/kernel/security/apparmor/profiles');
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
      const [a, b, c] = await Promise.all(
        [plain.containerId, second, target].map((each) => pidOf(cri, each)),
      );
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
      const pid = await pidOf(suite.cri, host.containerId);
      for (const kind of ['net', 'ipc', 'uts', 'pid']) {
        assert.equal(inode(pid, kind), inode('self', kind), `${kind} is of the host`);
      }
      // POD is also what an unset field says, and the pod's processes are the host's.
      for (const [name, mode] of Object.entries({ pod: 'POD', container: 'CONTAINER' } as const)) {
        const config = shellContainer(image, SLEEP, {
          name,
          ...options({ pid: NamespaceMode[mode] }),
        });
        const started = await startContainer(cri, host.podId, config, host.config);
        const namespace = inode(await pidOf(cri, started), 'pid');
        assert.equal(namespace === inode('self', 'pid'), mode === 'POD', mode);
      }
      assert.equal(host.ip, '');
      const { status } = await cri.call('podSandboxStatus', {
        podSandboxId: host.podId,
        verbose: false,
      });
      assert.equal(status?.linux?.namespaces?.options?.network, NODE);
    });

    it(`applies local seccomp profiles, and every profile by its deprecated path too, under ${handler}`, async () => {
      const profile = join(suite.stack.root, 'no-hostname.json');
      const syscalls = [{ names: ['sethostname'], action: 'SCMP_ACT_ERRNO' }];
      writeFileSync(profile, JSON.stringify({ defaultAction: 'SCMP_ACT_ALLOW', syscalls }));
      const capabilities = { addCapabilities: ['SYS_ADMIN'] };
      const rows: [Security, string, RegExp][] = [
        [{ seccomp: { profileType: Localhost, localhostRef: profile } }, '2', /not permitted/],
        [{ seccompProfilePath: `localhost/${profile}` }, '2', /not permitted/],
        [{ seccompProfilePath: 'runtime/default' }, '2', /^named$/],
        [{ seccompProfilePath: 'docker/default' }, '2', /^named$/],
        [{ seccompProfilePath: 'unconfined' }, '0', /^named$/],
        // The new field counts where both are given.
        [{ seccomp: { profileType: Unconfined }, seccompProfilePath: 'what' }, '0', /^named$/],
      ];
      const seen = await Promise.all(
        rows.map(async ([security]) => {
          const { containerId } = await run({ capabilities, ...security });
          const said = await shell(containerId, 'hostname x && echo named');
          return [await field(containerId, 'Seccomp'), said] as const;
        }),
      );
      for (const [index, [mode, said]] of seen.entries()) {
        assert.equal(mode, rows[index]?.[1], JSON.stringify(rows[index]?.[0]));
        assert.match(said, rows[index]?.[2] ?? /$^/, JSON.stringify(rows[index]?.[0]));
      }
    });

    it(`refuses users, groups, capabilities and profiles that are wrong or that are not here, under ${handler}`, async () => {
      const local = (localhostRef: string) => ({ profileType: Localhost, localhostRef });
      const rows: [Security, number, RegExp][] = [
        [{ runAsGroup: { value: 1n } }, 3, /run_as_group: group 1 is given without run_as_user/],
        [{ runAsUsername: 'nobody-here' }, 3, /no user "nobody-here"/],
        [{ runAsUser: { value: -1n } }, 3, /run_as_user: -1 is not an id/],
        [{ runAsUser: { value: 2n ** 32n } }, 3, /run_as_user: 4294967296 is not an id/],
        [{ supplementalGroups: [2n ** 40n] }, 3, /supplemental_groups: 1099511627776 is not an id/],
        [{ supplementalGroupsPolicy: 7 as 0 }, 3, /supplemental_groups_policy: 7/],
        [{ capabilities: { addCapabilities: ['FLY'] } }, 3, /"FLY" is not a capability/],
        [{ capabilities: { dropCapabilities: ['CAP_'] } }, 3, /"CAP_" is not a capability/],
        [{ capabilities: { addAmbientCapabilities: ['FLY'] } }, 3, /"FLY" is not a capability/],
        [{ seccomp: local('/no/such.json') }, 3, /the profile "\/no\/such.json" can't be read/],
        [{ seccomp: local('relative.json') }, 3, /"relative.json" is not an absolute path/],
        [{ seccomp: local('') }, 3, /needs the path of its file/],
        [{ seccomp: local('/etc/passwd') }, 3, /"\/etc\/passwd" isn't JSON/],
        [{ seccompProfilePath: 'localhost/relative' }, 3, /is not an absolute path/],
        [{ seccompProfilePath: 'nonsense' }, 3, /"nonsense" is not a profile/],
        [{ apparmorProfile: 'nonsense' }, 3, /"nonsense" is not a profile/],
        // Not loaded, or not loadable: this host may have no AppArmor at all.
        [{ apparmor: local('not-loaded') }, HAS_APPARMOR ? 3 : 9, /apparmor .*"not-loaded"/],
        [{ apparmorProfile: 'localhost/not-loaded' }, HAS_APPARMOR ? 3 : 9, /apparmor/],
        [{ maskedPaths: ['proc/kcore'] }, 3, /masked_paths: "proc\/kcore" is not an absolute path/],
      ];
      await Promise.all(
        rows.map(([security, code, message]) =>
          assert.rejects(run(security), { code, message }, message.source),
        ),
      );
      const ofPod: typeof rows = [
        [{ runAsGroup: { value: 1n } }, 3, /run_as_group: group 1 is given without run_as_user/],
        [{ apparmor: local('not-loaded') }, HAS_APPARMOR ? 3 : 9, /sandbox .*"not-loaded"/],
      ];
      for (const [security, code, message] of ofPod) {
        const pod = { linux: { securityContext: { ...POD, ...security } } };
        const started = runPod(suite.stack, { image: suite.image, script: SLEEP, handler, pod });
        await assert.rejects(started, { code, message }, message.source);
      }
      const privileged = { linux: { securityContext: { ...POD, privileged: true } } };
      await assert.rejects(
        runPod(suite.stack, {
          image: suite.image,
          script: SLEEP,
          handler,
          pod: { linux: { securityContext: POD } },
          container: privileged,
        }),
        { code: 3, message: /no privileged container is allowed in an unprivileged sandbox/ },
      );
      const { containers } = await suite.cri.call(
        'listContainers',
        ListContainersRequest.fromPartial({}),
      );
      assert.deepEqual(containers, []);
    });

    it(`passes over default profiles and labels of modules that the host lacks, under ${handler}`, async () => {
      const pods = await Promise.all([
        run({ apparmor: { profileType: RuntimeDefault } }),
        run({ apparmorProfile: 'runtime/default' }),
        run({ apparmor: { profileType: Unconfined } }),
        run({ selinuxOptions: { user: 'u', role: 'r', type: 't', level: 's0' } }),
      ]);
      const names = await Promise.all(
        pods.map(({ containerId }) => shell(containerId, 'id -u; cat /proc/1/attr/current')),
      );
      const confined = HAS_APPARMOR ? /^0\n\S+ \(enforce\)$/ : /^0(\n|$)/;
      assert.match(names[0] ?? '', confined);
      assert.match(names[1] ?? '', confined);
      for (const name of names) assert.match(name, /^0(\n|$)/);
    });

    it(`raises ambient capabilities for another user than root, by either spelling, under ${handler}`, async () => {
      const { containerId } = await run({
        runAsUser: { value: 1000n },
        capabilities: {
          dropCapabilities: ['all'],
          addCapabilities: ['CAP_NET_RAW'],
          addAmbientCapabilities: ['net_admin'],
        },
      });
      const [netAdmin, netRaw] = [1n << 12n, 1n << 13n];
      const set = async (name: string) => BigInt(`0x${await field(containerId, name)}`);
      assert.equal(await set('CapAmb'), netAdmin);
      assert.equal(await set('CapEff'), netAdmin, 'raised at the exec of another user');
      assert.equal(await set('CapBnd'), netAdmin | netRaw);
    });

    it(`joins the groups of the image or only those asked for, by the policy, under ${handler}`, async () => {
      const asked = { runAsUser: { value: 1000n }, supplementalGroups: [5000n] };
      const [merged, strict] = await Promise.all([
        run({ ...asked, supplementalGroupsPolicy: SupplementalGroupsPolicy.Merge }),
        run({ ...asked, supplementalGroupsPolicy: SupplementalGroupsPolicy.Strict }),
      ]);
      const expected = [
        [merged, '1000 2000 5000'],
        [strict, '1000 5000'],
      ] as const;
      for (const [{ containerId }, groups] of expected) {
        assert.equal(await shell(containerId, 'id -G'), groups);
        const { user } = await containerStatus(suite.cri, containerId);
        assert.equal(user?.linux?.supplementalGroups.join(' '), groups);
        assert.deepEqual([user?.linux?.uid, user?.linux?.gid], [1000n, 1000n]);
      }
    });

    it(`reaps in a shared process namespace what its parent left behind, under ${handler}`, async () => {
      const seccomp = { profileType: RuntimeDefault };
      const namespaceOptions = { pid: NamespaceMode.POD };
      const shared = { linux: { securityContext: { namespaceOptions, seccomp } } };
      const { image, stack, cri } = suite;
      const options = { image, script: SLEEP, handler, pod: shared, container: shared };
      const pod = await runPod(stack, options);
      const second = await startContainer(
        cri,
        pod.podId,
        shellContainer(image, SLEEP, { name: 'second', ...shared }),
        pod.config,
      );
      const filter = await shell(second, 'grep ^Seccomp: /proc/1/status');
      assert.equal(filter, 'Seccomp:\t2', "the init has the pod's filter");
      // Each background shell loses its parent at once, so that the init inherits its end.
      await shell(pod.containerId, 'for i in 1 2 3 4 5; do (sh -c "exit $i" &); done');
      await eventually('the zombies are gone', async () => {
        const states = await shell(second, 'cat /proc/[0-9]*/stat 2>/dev/null | cut -d" " -f3');
        return !states.split('\n').includes('Z');
      });
      const names = await shell(second, 'cat /proc/[0-9]*/comm');
      assert.match(names, /^catatonit$/m);
      assert.equal(names.split('\n').filter((name) => name === 'sh').length, 2, names);
    });

    it(`refuses to join the processes of nobody and of another pod, under ${handler}`, async () => {
      const [pod, other] = await Promise.all([run({}), run({})]);
      const join = (targetId: string) => {
        const namespaceOptions = { pid: NamespaceMode.TARGET, targetId };
        const linux = { securityContext: { namespaceOptions } };
        const config = shellContainer(suite.image, SLEEP, { name: 'joins', linux });
        return startContainer(suite.cri, pod.podId, config, pod.config);
      };
      await assert.rejects(join(''), { code: 3, message: /TARGET needs the target_id/ });
      await assert.rejects(join('0'.repeat(64)), { code: 5, message: /does not exist/ });
      await assert.rejects(join(other.containerId), { code: 3, message: /in another sandbox/ });
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
