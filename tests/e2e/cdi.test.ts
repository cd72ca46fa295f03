// CDI devices: spec files in directories of the test, what they change in containers of each handler,
// which file counts, and what is refused.

import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import {
  CreateContainerRequest,
  ListContainersRequest,
  NamespaceMode,
} from '@cribus/contracts/gen/cri/v1/api.ts';
import { after, afterEach, before, describe, it } from 'mocha';
import { failureOf, type Refusal } from './harness/image-calls.ts';
import {
  containerStatus,
  exec,
  runPod,
  runSandbox,
  shellContainer,
  startContainer,
} from './harness/pods.ts';
import { HANDLERS, HOST_KERNEL_HANDLERS, stackSuite } from './harness/suite.ts';

const SLEEP = "trap 'exit 0' TERM; while :; do sleep 0.05; done";
/** misc.h: autofs' and loop-control's numbers need not be known here, fuse's are 10, 229. */
const FUSE = { major: 10, minor: 229 };

describe('CDI devices', () => {
  // Made when the tests run, for tests that nobody asks for leave nothing behind.
  const base = join(tmpdir(), `cribus-cdi-${randomUUID()}`);
  const low = join(base, 'etc');
  const high = join(base, 'run');
  const vendorDirectory = join(base, 'vendor');
  const suite = stackSuite({ config: `[cdi]\nspec_dirs = ${JSON.stringify([low, high])}\n` });
  before(() => {
    mkdirSync(vendorDirectory, { recursive: true });
    writeFileSync(join(vendorDirectory, 'library'), 'of the vendor\n');
    execFileSync('mknod', ['-m', '0640', join(vendorDirectory, 'node'), 'c', '10', '229']);
    execFileSync('mknod', ['-m', '0600', join(vendorDirectory, 'block'), 'b', '7', '0']);
  });
  afterEach(() => {
    for (const directory of [low, high]) rmSync(directory, { recursive: true, force: true });
  });
  after(() => rmSync(base, { recursive: true, force: true }));

  const write = (directory: string, name: string, content: object | string) => {
    mkdirSync(directory, { recursive: true });
    const text = typeof content === 'string' ? content : JSON.stringify(content);
    writeFileSync(join(directory, name), text);
  };
  const device = (name: string, containerEdits: object) => ({ name, containerEdits });
  const spec = (devices: readonly object[], more: object = {}) => ({
    cdiVersion: '0.8.0',
    kind: 'vendor.example/gpu',
    devices,
    ...more,
  });
  const named = (...names: string[]) => ({
    CDIDevices: names.map((name) => ({ name: `vendor.example/gpu=${name}` })),
  });
  const refused = async (
    container: Parameters<typeof shellContainer>[2],
    refusal: Refusal,
    handler = 'runc',
  ) => {
    const { cri, stack, image } = suite;
    const { podSandboxId, config } = await runSandbox(stack, { handler });
    const request = { podSandboxId, config: shellContainer(image, SLEEP, container) };
    const details = await failureOf(
      cri.call(
        'createContainer',
        CreateContainerRequest.fromPartial({ ...request, sandboxConfig: config }),
      ),
      refusal,
    );
    const { containers } = await cri.call(
      'listContainers',
      ListContainersRequest.fromPartial({ filter: { podSandboxId } }),
    );
    assert.deepEqual(containers, []);
    return details;
  };
  const shell = async (containerId: string, script: string) => {
    const { stdout, stderr } = await exec(suite.cri, containerId, ['sh', '-c', script]);
    return `${stdout}${stderr}`.trimEnd();
  };

  for (const handler of HOST_KERNEL_HANDLERS) {
    it(`${handler} makes the device nodes of a CDI device, with their numbers, owners, modes and permissions`, async () => {
      const node = join(vendorDirectory, 'node');
      const nodes = [
        { path: '/dev/of-host', hostPath: node, permissions: 'r' },
        { path: '/dev/own', type: 'c', ...FUSE, fileMode: 0o604, uid: 7, gid: 8 },
        { path: '/dev/none', hostPath: node, permissions: 'none' },
        { path: '/dev/dir/block', hostPath: join(vendorDirectory, 'block') },
        { path: '/dev/pipe', type: 'p' },
      ];
      // The rules of a cgroup are of numbers, not of paths: so one container for each permission.
      const names = ['reads', 'writes', 'nothing', 'block', 'pipe'];
      write(
        low,
        'vendor.json',
        spec(nodes.map((one, at) => device(names[at] ?? '', { deviceNodes: [one] }))),
      );
      const { stack, image } = suite;
      const run = async (name: string) => {
        const container = { name, ...named(name) };
        return (await runPod(stack, { image, script: SLEEP, handler, container })).containerId;
      };
      const [reads, writes, nothing, block, pipe] = await Promise.all(names.map(run));
      const shown = (path: string) => `stat -c '%F %a %u:%g %t:%T' ${path}`;
      const open = (path: string) => `(: < ${path}) && echo reads; (: > ${path}) && echo writes`;
      assert.equal(
        await shell(reads ?? '', shown('/dev/of-host')),
        'character special file 640 0:0 a:e5',
      );
      assert.match(
        await shell(reads ?? '', open('/dev/of-host')),
        /^reads\n.*Operation not permitted$/,
      );
      assert.equal(
        await shell(writes ?? '', shown('/dev/own')),
        'character special file 604 7:8 a:e5',
      );
      assert.equal(await shell(writes ?? '', open('/dev/own')), 'reads\nwrites');
      assert.doesNotMatch(await shell(nothing ?? '', open('/dev/none')), /reads|writes/);
      assert.equal(
        await shell(block ?? '', shown('/dev/dir/block')),
        'block special file 600 0:0 7:0',
      );
      assert.match(await shell(pipe ?? '', shown('/dev/pipe')), /^fifo 666/);
    });
  }

  for (const handler of HANDLERS) {
    it(`${handler} applies environment, mounts, groups and hooks of a device, and of its file once`, async () => {
      const hook = join(base, `hook-${handler}`);
      const told = 'cat > "$1"; echo "$WHO" >> "$1"';
      write(
        low,
        'vendor.json',
        spec(
          [
            device('one', {
              env: ['DEVICE_ONE=1', 'SHARED=one'],
              mounts: [{ hostPath: vendorDirectory, containerPath: '/vendor/dir' }],
              additionalGids: [4711, 0],
            }),
            device('two', {
              env: ['SHARED=two'],
              hooks: [
                {
                  hookName: 'createRuntime',
                  path: '/bin/sh',
                  args: ['sh', '-c', told, 'sh', hook],
                  env: ['PATH=/bin:/usr/bin', 'WHO=device two'],
                  timeout: 10,
                },
                { hookName: 'poststop', path: '/bin/touch', args: ['touch', `${hook}-ended`] },
              ],
            }),
            device('unused', { env: ['UNUSED=1'] }),
          ],
          {
            annotations: { 'vendor.example/note': 'of nobody' },
            containerEdits: {
              env: ['OF_FILE=yes', 'SHARED=file'],
              mounts: [
                {
                  hostPath: join(vendorDirectory, 'library'),
                  containerPath: '/vendor/library',
                  options: ['ro', 'nosuid', 'bind'],
                },
                {
                  hostPath: 'tmpfs',
                  containerPath: '/vendor',
                  type: 'tmpfs',
                  options: ['mode=755'],
                },
              ],
            },
          },
        ),
      );
      const { stack, cri, image } = suite;
      const { containerId } = await runPod(stack, {
        image,
        script: SLEEP,
        handler,
        container: {
          ...named('one', 'two', 'one'),
          envs: [{ key: 'SHARED', value: Buffer.from('request') }],
        },
      });
      const env = await shell(containerId, 'env');
      assert.match(env, /^DEVICE_ONE=1$/m);
      assert.match(env, /^OF_FILE=yes$/m);
      assert.deepEqual(env.match(/^SHARED=.*$/gm), ['SHARED=two']);
      assert.doesNotMatch(env, /UNUSED/);
      assert.equal(await shell(containerId, 'cat /vendor/library'), 'of the vendor');
      assert.match(await shell(containerId, 'echo x >> /vendor/library'), /Read-only file system/);
      assert.equal(await shell(containerId, 'cat /vendor/dir/library'), 'of the vendor');
      assert.deepEqual((await shell(containerId, 'id -G')).split(' '), ['0', '4711']);
      const { user } = await containerStatus(cri, containerId);
      assert.deepEqual(user?.linux?.supplementalGroups, [0n, 4711n]);
      const heard = readFileSync(hook, 'utf8');
      assert.ok(heard.includes(`"${containerId}"`), 'the hook is told the state');
      assert.match(heard, /device two\n$/);
      assert.equal(existsSync(`${hook}-ended`), false);
      await cri.call('removeContainer', { containerId });
      assert.equal(existsSync(`${hook}-ended`), true);
    });
  }

  for (const handler of HOST_KERNEL_HANDLERS) {
    it(`${handler} gives devices at other paths than the host's and mounts with their owners into a user namespace`, async () => {
      const node = join(vendorDirectory, 'node');
      write(
        low,
        'vendor.json',
        spec([
          device('one', {
            deviceNodes: [{ path: '/dev/of-cdi', hostPath: node, permissions: 'r' }],
            mounts: [{ hostPath: vendorDirectory, containerPath: '/vendor' }],
          }),
        ]),
      );
      const ids = [{ hostId: 200_000, containerId: 0, length: 65_536 }];
      const usernsOptions = { mode: NamespaceMode.POD, uids: ids, gids: ids };
      const linux = {
        securityContext: { namespaceOptions: { pid: NamespaceMode.CONTAINER, usernsOptions } },
      };
      const { stack, image } = suite;
      const devices = [{ hostPath: node, containerPath: '/dev/of-cri', permissions: 'r' }];
      const { containerId } = await runPod(stack, {
        image,
        script: SLEEP,
        handler,
        pod: { linux },
        container: { ...named('one'), devices, linux },
      });
      for (const path of ['/dev/of-cdi', '/dev/of-cri']) {
        assert.match(await shell(containerId, `stat -c '%F %t:%T' ${path}`), /^character.* a:e5$/);
      }
      assert.equal(await shell(containerId, "stat -c '%u:%g' /vendor/library"), '0:0');
      assert.equal(await shell(containerId, 'cat /vendor/library'), 'of the vendor');
    });
  }

  it('a file counts from the moment it is written, as YAML too, and devices are also asked for by annotation', async () => {
    const { stack, cri, image } = suite;
    const { podSandboxId, config } = await runSandbox(stack, { handler: 'runc' });
    const valueIn = async (name: string) => {
      const annotations = {
        'cdi.k8s.io/plugin_1': 'vendor.example/net=nic0,vendor.example/gpu=one',
      };
      const container = shellContainer(image, SLEEP, { name, annotations });
      const containerId = await startContainer(cri, podSandboxId, container, config);
      return await shell(containerId, 'echo $GPU $NIC; stat -c %a /dev/nic');
    };
    write(low, 'gpu.json', spec([device('one', { env: ['GPU=first'] })]));
    write(
      high,
      'nic.yaml',
      [
        '# Written by a device plugin.',
        'cdiVersion: "0.5.0"',
        'kind: vendor.example/net',
        'devices:',
        '  - name: nic0',
        '    containerEdits:',
        '      env: [NIC=zero]',
        '      mounts: null',
        '      deviceNodes:',
        `        - {path: /dev/nic, type: c, major: ${FUSE.major}, minor: ${FUSE.minor}, fileMode: 0640}`,
      ].join('\n'),
    );
    assert.equal(await valueIn('first'), 'first zero\n640');
    write(low, 'gpu.json', spec([device('one', { env: ['GPU=second'] })]));
    assert.equal(await valueIn('second'), 'second zero\n640');
  });

  it('the later directory has precedence, and a device that is twice in one directory is refused', async () => {
    const { stack, image } = suite;
    write(
      low,
      'a.json',
      spec([device('one', { env: ['FROM=low'] }), device('two', { env: ['X=a'] })]),
    );
    write(low, 'b.json', spec([device('two', { env: ['X=b'] })]));
    write(high, 'a.json', spec([device('one', { env: ['FROM=high'] })]));
    const container = named('one');
    const { containerId } = await runPod(stack, { image, script: SLEEP, container });
    assert.equal(await shell(containerId, 'echo $FROM'), 'high');
    await refused(named('two'), {
      code: 'FAILED_PRECONDITION',
      message: new RegExp(`gpu=two is both in ${low}/a.json and in ${low}/b.json`),
    });
  });

  it('an unknown device is refused by its name, with the directories and what is wrong with files in them', async () => {
    write(high, 'broken.json', '{"cdiVersion": ');
    write(high, 'old.json', spec([device('0', { env: ['A=b'] })], { cdiVersion: '0.3.0' }));
    write(high, 'odd.yaml', 'cdiVersion: 0.6.0\nkind: vendor.example/x\ndevices: []\nmore: 1\n');
    write(high, 'ignored.txt', 'no spec at all');
    const details = await refused(named('nine'), {
      code: 'NOT_FOUND',
      message: /CDI device vendor\.example\/gpu=nine not found/,
    });
    assert.ok(details.includes(`not found in ${low}, ${high}`), details);
    assert.match(details, new RegExp(`${high}/broken.json: it is no JSON`));
    assert.match(
      details,
      new RegExp(`${high}/old.json: .* begins with a digit needs cdiVersion 0.5.0`),
    );
    assert.match(
      details,
      new RegExp(`${high}/odd.yaml: (more: there is no such field|devices must)`),
    );
    assert.doesNotMatch(details, /ignored/);
    await refused(
      { CDIDevices: [{ name: 'vendor.example/gpu' }] },
      {
        code: 'INVALID_ARGUMENT',
        message: /CDI device "vendor\.example\/gpu": must be <vendor>\/<class>=<name>/,
      },
    );
    await refused(
      { annotations: { 'cdi.k8s.io/x': 'gpu0' } },
      {
        code: 'INVALID_ARGUMENT',
        message: /CDI device "gpu0"/,
      },
    );
  });

  it('what a file names and this host has not is refused, and so is what the handler can not', async () => {
    write(
      low,
      'vendor.json',
      spec(
        [
          device('node', { deviceNodes: [{ path: '/dev/no-such-device' }] }),
          device('mount', { mounts: [{ hostPath: '/no/such/file', containerPath: '/x' }] }),
          device('rdt', { intelRdt: { closID: 'fast' } }),
          device('nic', { netDevices: [{ hostInterfaceName: 'eth7', name: 'eth0' }] }),
          device('inside', { hooks: [{ hookName: 'createContainer', path: '/bin/true' }] }),
          device('fuse', { deviceNodes: [{ path: '/dev/vendor', type: 'c', ...FUSE }] }),
        ],
        { cdiVersion: '1.1.0' },
      ),
    );
    const missing = 'FAILED_PRECONDITION';
    await refused(named('node'), { code: missing, message: /no-such-device is no device node/ });
    await refused(named('mount'), {
      code: missing,
      message: /\/no\/such\/file is not on this host/,
    });
    await refused(named('rdt'), { code: 'UNIMPLEMENTED', message: /intelRdt needs the resctrl/ });
    await refused(named('nic'), { code: 'UNIMPLEMENTED', message: /moves no network devices/ });
    for (const [name, message] of [
      ['inside', /this handler runs no createContainer hooks/],
      ['fuse', /\/dev\/vendor: containers of this handler have no such device/],
    ] as const) {
      await refused(named(name), { code: 'UNIMPLEMENTED', message }, 'gvisor');
    }
    assert.deepEqual(readdirSync(low), ['vendor.json']);
  });
});
