// Directories, files and devices of the host in containers of each handler: which mounts pass in which
// direction, what read-only means below them, which paths are refused, and what the status says.

import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  realpathSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import {
  CreateContainerRequest,
  ListContainersRequest,
  type Mount,
  MountPropagation,
  NamespaceMode,
} from '@cribus/contracts/gen/cri/v1/api.ts';
import { afterEach, beforeEach, describe, it } from 'mocha';
import { failureOf, type Refusal } from './harness/image-calls.ts';
import { containerStatus, exec, podConfig, runPod, shellContainer } from './harness/pods.ts';
import { HANDLERS, HOST_KERNEL_HANDLERS, removeAllPods, stackSuite } from './harness/suite.ts';

const SLEEP = "trap 'exit 0' TERM; while :; do sleep 0.05; done";
const PRIVATE = MountPropagation.PROPAGATION_PRIVATE;
const HOST_TO_CONTAINER = MountPropagation.PROPAGATION_HOST_TO_CONTAINER;
const BIDIRECTIONAL = MountPropagation.PROPAGATION_BIDIRECTIONAL;

type Container = Parameters<typeof shellContainer>[2];

describe('volumes and devices of the host', () => {
  const suite = stackSuite();
  let base = '';
  /** A shared mount of its own, as a kubelet's directory is on a host with systemd. */
  let shared = '';
  beforeEach(() => {
    base = realpathSync(mkdtempSync(join(tmpdir(), 'cribus-volumes-')));
    shared = join(base, 'shared');
    mkdirSync(shared);
    execFileSync('mount', ['--bind', shared, shared]);
    execFileSync('mount', ['--make-shared', shared]);
  });
  afterEach(async () => {
    // What containers have mounted from it goes with them.
    await removeAllPods(suite.cri);
    execFileSync('umount', ['-R', shared]);
    rmSync(base, { recursive: true });
  });

  const mountBelow = (directory: string, name: string, options = '') => {
    const path = join(directory, name);
    mkdirSync(path, { recursive: true });
    execFileSync('mount', ['-t', 'tmpfs', ...(options === '' ? [] : ['-o', options]), name, path]);
    writeFileSync(join(path, 'file'), `in ${name}\n`);
  };
  const shell = async (containerId: string, script: string) => {
    const { stdout, stderr } = await exec(suite.cri, containerId, ['sh', '-c', script]);
    return `${stdout}${stderr}`.trimEnd();
  };
  const run = async (handler: string, container: Container, privileged = false) => {
    const { stack, image } = suite;
    const linux = { securityContext: { privileged } };
    const pod = {
      linux: {
        securityContext: { privileged, namespaceOptions: { pid: NamespaceMode.CONTAINER } },
      },
    };
    const { containerId } = await runPod(stack, {
      image,
      script: SLEEP,
      handler,
      pod,
      container: { ...container, linux },
    });
    return containerId;
  };
  /** A pod in which every container is refused. */
  const refusing = async (handler: string) => {
    const { cri, stack, image } = suite;
    const sandboxConfig = await podConfig(stack);
    const { podSandboxId } = await cri.call('runPodSandbox', {
      config: sandboxConfig,
      runtimeHandler: handler,
    });
    return async (container: Container, refusal: Refusal) => {
      const config = shellContainer(image, SLEEP, container);
      const request = CreateContainerRequest.fromPartial({ podSandboxId, config, sandboxConfig });
      await failureOf(cri.call('createContainer', request), refusal);
      const { containers } = await cri.call(
        'listContainers',
        ListContainersRequest.fromPartial({ filter: { podSandboxId } }),
      );
      assert.deepEqual(containers, []);
    };
  };
  const propagated = (propagation: MountPropagation) => ({
    mounts: [{ containerPath: '/v', hostPath: shared, propagation }],
  });

  for (const handler of HOST_KERNEL_HANDLERS) {
    it(`${handler} lets later mounts pass as the propagation says: PRIVATE none, HOST_TO_CONTAINER in, BIDIRECTIONAL both ways`, async () => {
      mountBelow(shared, 'before');
      const modes = [PRIVATE, HOST_TO_CONTAINER, BIDIRECTIONAL];
      const ids = await Promise.all(modes.map((mode) => run(handler, propagated(mode), true)));
      for (const [index, id] of ids.entries()) {
        const { mounts } = await containerStatus(suite.cri, id);
        assert.deepEqual(
          mounts.map((mount) => [mount.hostPath, mount.propagation]),
          [[shared, modes[index]]],
        );
        assert.equal(await shell(id, 'cat /v/before/file'), 'in before');
      }
      mountBelow(shared, 'later');
      const seen = await Promise.all(ids.map((id) => shell(id, 'cat /v/later/file')));
      assert.match(seen[0] ?? '', /No such file/);
      assert.deepEqual(seen.slice(1), ['in later', 'in later']);
      for (const [index, id] of ids.entries()) {
        const inside = `inside-${index}`;
        const script = `mkdir /v/${inside} && mount -t tmpfs t /v/${inside} && touch /v/${inside}/x`;
        assert.equal(await shell(id, script), '');
        assert.equal(existsSync(join(shared, inside, 'x')), modes[index] === BIDIRECTIONAL);
      }
      assert.match(await shell(ids[1] ?? '', 'ls /v/inside-2'), /^x$/, 'from one into the other');
    });

    it(`${handler} leaves what is mounted below a read-only volume writable, unless it is recursively read-only`, async () => {
      mountBelow(shared, 'below');
      const mount = { hostPath: shared, readonly: true };
      const id = await run(handler, {
        mounts: [
          { ...mount, containerPath: '/plain' },
          { ...mount, containerPath: '/recursive', recursiveReadOnly: true },
        ],
      });
      const { mounts } = await containerStatus(suite.cri, id);
      assert.deepEqual(
        mounts.map((one) => [one.containerPath, one.readonly, one.recursiveReadOnly]),
        [
          ['/plain', true, false],
          ['/recursive', true, true],
        ],
      );
      assert.equal(await shell(id, 'echo x > /plain/below/x; cat /recursive/below/x'), 'x');
      for (const path of ['/plain/x', '/recursive/x', '/recursive/below/x']) {
        assert.match(await shell(id, `echo y >> ${path}`), /Read-only file system/, path);
      }
    });

    it(`${handler} gives devices as asked: alone, by a symlink, a directory of them, each with its permissions`, async () => {
      const nodes = join(base, 'nodes');
      mkdirSync(join(nodes, 'deep'), { recursive: true });
      execFileSync('mknod', ['-m', '0600', join(nodes, 'one'), 'c', '10', '229']);
      execFileSync('mknod', ['-m', '0644', join(nodes, 'deep', 'two'), 'b', '7', '0']);
      writeFileSync(join(nodes, 'no-device'), '');
      symlinkSync(join(nodes, 'one'), join(base, 'link'));
      const device = (hostPath: string, containerPath: string, permissions: string) => ({
        devices: [{ hostPath, containerPath, permissions }],
      });
      const [reads, writes, all, made] = await Promise.all([
        run(handler, device(join(nodes, 'one'), '/dev/one', 'r')),
        run(handler, device(join(base, 'link'), '/dev/linked', 'w')),
        run(handler, device(nodes, '/dev/vendor', 'rwm')),
        run(handler, {
          ...device(join(nodes, 'one'), '/dev/one', 'm'),
        }),
      ]);
      const open = (path: string) => `(: < ${path}) && echo reads; (: >> ${path}) && echo writes`;
      assert.match(await shell(reads ?? '', open('/dev/one')), /^reads\n.*not permitted$/);
      assert.match(await shell(writes ?? '', open('/dev/linked')), /^writes\n.*not permitted$/);
      assert.match(
        await shell(made ?? '', open('/dev/one')),
        /^[^\n]*not permitted\n[^\n]*not permitted$/,
      );
      assert.equal(await shell(made ?? '', 'mknod /dev/again c 10 229'), '');
      assert.equal(await shell(all ?? '', open('/dev/vendor/one')), 'reads\nwrites');
      assert.equal(
        await shell(all ?? '', "find /dev/vendor -type b -exec stat -c '%n %a %t:%T' {} +"),
        '/dev/vendor/deep/two 644 7:0',
      );
      assert.match(await shell(all ?? '', 'ls /dev/vendor/no-device'), /No such file/);
    });
  }

  it('gVisor takes mounts of the host as HOST_TO_CONTAINER says, and refuses BIDIRECTIONAL', async () => {
    const modes = [PRIVATE, HOST_TO_CONTAINER];
    const ids = await Promise.all(modes.map((mode) => run('gvisor', propagated(mode))));
    mountBelow(shared, 'later');
    assert.match(await shell(ids[0] ?? '', 'cat /v/later/file'), /No such file/);
    assert.equal(await shell(ids[1] ?? '', 'cat /v/later/file'), 'in later');
    await (await refusing('gvisor'))(propagated(BIDIRECTIONAL), {
      code: 'UNIMPLEMENTED',
      message: /mounts\["\/v"\]: what containers of this handler mount is never seen by the host/,
    });
  });

  it('gVisor makes a volume read-only with all that is mounted below it', async () => {
    mountBelow(shared, 'below');
    const mount = { containerPath: '/v', hostPath: shared, readonly: true };
    const id = await run('gvisor', { mounts: [{ ...mount, recursiveReadOnly: true }] });
    for (const path of ['/v/x', '/v/below/x']) {
      assert.match(await shell(id, `echo y > ${path}`), /Read-only file system/, path);
    }
    const [shown] = (await containerStatus(suite.cri, id)).mounts;
    assert.deepEqual([shown?.readonly, shown?.recursiveReadOnly], [true, true]);
  });

  it('gVisor has the devices that are its own, and refuses those of the host', async () => {
    const own = { hostPath: '/dev/null', containerPath: '/dev/null', permissions: 'rw' };
    const id = await run('gvisor', { devices: [own] });
    assert.equal(await shell(id, 'echo x > /dev/null && echo written'), 'written');
    const refused = await refusing('gvisor');
    for (const [hostPath, containerPath] of [
      ['/dev/loop-control', '/dev/loop-control'],
      ['/dev/null', '/dev/other'],
      ['/dev/zero', '/dev/null'],
    ] as const) {
      const device = { hostPath, containerPath, permissions: 'rw' };
      await refused(
        { devices: [device] },
        {
          code: 'UNIMPLEMENTED',
          message: /containers of this handler can have no "\/dev\//,
        },
      );
    }
  });

  it('BIDIRECTIONAL is refused where the mount of the host is not shared, and HOST_TO_CONTAINER where it is no slave either', async () => {
    execFileSync('mount', ['--bind', base, base]);
    execFileSync('mount', ['--make-private', base]);
    try {
      const refused = await refusing('runc');
      for (const [propagation, why] of [
        [BIDIRECTIONAL, `below ${base} can't be seen by the host, .* is private and not shared`],
        [HOST_TO_CONTAINER, `mounted below ${base} by the host, .* is private and neither shared`],
      ] as const) {
        const mount = { containerPath: '/v', hostPath: base, propagation };
        const refusal = { code: 'FAILED_PRECONDITION', message: new RegExp(why) } as const;
        await refused({ mounts: [mount] }, refusal);
      }
    } finally {
      execFileSync('umount', [base]);
    }
  });

  for (const handler of HANDLERS) {
    it(`${handler} binds files, directories and a tmpfs, follows symlinks of the host, and tells what it mounted`, async () => {
      const directory = join(base, 'directory');
      mkdirSync(directory);
      writeFileSync(join(directory, 'file'), 'text\n');
      symlinkSync('directory', join(base, 'to-directory'));
      symlinkSync(join(base, 'to-directory', 'file'), join(base, 'to-file'));
      mountBelow(base, 'memory', 'size=1m');
      const volume = (name: string, more: Partial<Mount> = {}) => ({
        containerPath: `/volumes/${name}`,
        hostPath: join(base, name),
        ...more,
      });
      try {
        const mounts = [
          volume('directory'),
          volume('to-directory', { selinuxRelabel: true }),
          volume('to-file', { readonly: true }),
          volume('memory'),
        ];
        const id = await run(handler, { mounts });
        const read = 'cd /volumes; cat directory/file to-directory/file to-file';
        assert.equal(await shell(id, read), 'text\ntext\ntext');
        assert.equal(await shell(id, 'echo new > /volumes/to-directory/file'), '');
        assert.equal(readFileSync(join(directory, 'file'), 'utf8'), 'new\n');
        assert.match(await shell(id, 'echo x > /volumes/to-file'), /Read-only file system/);
        const fill = 'dd if=/dev/zero of=/volumes/memory/big bs=64k count=32 2>&1';
        assert.match(await shell(id, fill), /No space left on device/);
        const shown = (await containerStatus(suite.cri, id)).mounts;
        assert.deepEqual(
          shown.map((mount) => [
            mount.containerPath,
            mount.hostPath,
            mount.readonly,
            mount.selinuxRelabel,
          ]),
          mounts.map((mount) => [
            mount.containerPath,
            mount.hostPath,
            mount.readonly ?? false,
            mount.selinuxRelabel ?? false,
          ]),
        );
      } finally {
        await removeAllPods(suite.cri);
        execFileSync('umount', [join(base, 'memory')]);
      }
    });
  }

  it('a host path that is absent, relative or dangling is refused, and so is a contradiction', async () => {
    mkdirSync(join(base, 'directory'));
    writeFileSync(join(base, 'file'), '');
    symlinkSync('dangling-target', join(base, 'dangling'));
    const volume = (name: string, more: Partial<Mount> = {}) => ({
      containerPath: `/volumes/${name}`,
      hostPath: join(base, name),
      ...more,
    });
    const bad: readonly (readonly [Partial<Mount>, RegExp])[] = [
      [volume('absent'), /host path .*absent does not exist/],
      [volume('dangling'), /host path .*dangling does not exist/],
      [volume('x', { hostPath: join(base, 'file', 'below') }), /does not exist/],
      [volume('x', { hostPath: 'directory' }), /host path "directory" is not absolute/],
      [volume('x', { hostPath: '' }), /host path "" is not absolute/],
      [volume('directory', { containerPath: 'volumes' }), /mount path "volumes" is not absolute/],
      [volume('directory', { recursiveReadOnly: true }), /recursive_read_only needs readonly/],
      [
        volume('directory', {
          readonly: true,
          recursiveReadOnly: true,
          propagation: HOST_TO_CONTAINER,
        }),
        /recursive_read_only needs the propagation PROPAGATION_PRIVATE/,
      ],
    ];
    const refused = await refusing('runc');
    for (const [mount, message] of bad) {
      await refused({ mounts: [mount] }, { code: 'INVALID_ARGUMENT', message });
    }
  });

  it('a device that is absent, relative, no device or asked for with wrong permissions is refused', async () => {
    writeFileSync(join(base, 'plain'), '');
    mkdirSync(join(base, 'empty'));
    const refused = await refusing('runc');
    for (const [device, message] of [
      [{ hostPath: '/dev/absent' }, /device "\/dev\/absent" does not exist/],
      [{ hostPath: 'dev/null' }, /device "dev\/null" is not an absolute path/],
      [{ hostPath: join(base, 'plain') }, /plain" is no device of this host/],
      [{ hostPath: join(base, 'empty') }, /empty" holds no device of this host/],
      [{ hostPath: '/dev/null', permissions: 'rx' }, /permissions "rx" are not of the letters/],
      [{ hostPath: '/dev/null', containerPath: 'null' }, /container_path is not absolute/],
    ] as const) {
      await refused({ devices: [device] }, { code: 'INVALID_ARGUMENT', message });
    }
  });
});
