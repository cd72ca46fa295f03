// What a container sees of its image's layers: every file as GNU tar unpacks the same layers, read
// from the host through the container's root, and by a script inside the container.

import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import {
  linkSync,
  lutimesSync,
  mkdirSync,
  mkdtempSync,
  rmSync,
  symlinkSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pushImage } from '@cribus/cli/tour/image.ts';
import { type Registry, startRegistry } from '@cribus/cli/tour/registry.ts';
import { writeTar } from '@cribus/cli/tour/tar-writer.ts';
import { ContainerStatusRequest } from '@cribus/contracts/gen/cri/v1/api.ts';
import { setXattr } from '@cribus/host/jail.ts';
import { after, before, describe, it } from 'mocha';
import { type ArchiveEntry, archive } from './harness/archive.ts';
import { type Compression, composeImage } from './harness/compose-image.ts';
import { differences, readTree, unpackWithGnuTar } from './harness/file-tree.ts';
import { pullImage } from './harness/image-calls.ts';
import { busyboxLayer } from './harness/images.ts';
import { assertNothingLeaked, type HostSnapshot, snapshotHost } from './harness/leaks.ts';
import { exec, runPod } from './harness/pods.ts';
import { type Stack, startStack } from './harness/stack.ts';

const NS = 1_000_000_000n;
const time = (seconds: bigint, ns = 0n) => seconds * NS + ns;
/** Numbers of /dev/zero and of a loop device, and ones that need every bit of a device number. */
const LARGE_DEVICE = { major: 2049, minor: 1_048_000 };
const ROOT = 'tree';

describe('the files of an image', () => {
  let host: HostSnapshot;
  let stack: Stack;
  let registry: Registry;
  let directory: string;
  let pushed = 0;
  before(async () => {
    host = snapshotHost();
    directory = mkdtempSync(join(tmpdir(), 'cribus-layers-'));
    registry = await startRegistry();
    stack = await startStack();
  });
  after(async () => {
    await stack.destroy();
    await registry.stop();
    rmSync(directory, { recursive: true, force: true });
    assertNothingLeaked(host);
  });

  /** Runs a pod on busybox and these layers. */
  async function runOn(
    layers: readonly Buffer[],
    options: { readonly compression?: readonly Compression[]; readonly handler?: string } = {},
  ) {
    const image = composeImage({
      layers: [writeTar(busyboxLayer()), ...layers],
      ...(options.compression === undefined ? {} : { compression: options.compression }),
    });
    pushed += 1;
    const repository = `layers/${pushed}`;
    await pushImage(image, ['v1'], {
      registry: registry.url,
      repository,
      signal: AbortSignal.timeout(30_000),
    });
    const name = `${registry.host}/${repository}:v1`;
    assert.equal(await pullImage(stack.cri, name), image.id);
    const { containerId } = await runPod(stack, {
      image: name,
      script: 'sleep 300',
      ...(options.handler === undefined ? {} : { handler: options.handler }),
    });
    const { info } = await stack.cri.call(
      'containerStatus',
      ContainerStatusRequest.fromPartial({ containerId, verbose: true }),
    );
    const { pid } = JSON.parse(info['info'] ?? '{}') as { pid: number };
    return { containerId, pid };
  }

  /** Compares /tree of a container on these layers with GNU tar's. */
  async function checkAgainstTar(
    layers: readonly Buffer[],
    options: { readonly compression?: readonly Compression[] } = {},
  ) {
    const reference = mkdtempSync(join(directory, 'gnu-'));
    unpackWithGnuTar(layers, reference);
    const { containerId, pid } = await runOn(layers, options);
    const should = readTree(join(reference, ROOT));
    const is = readTree(join('/proc', String(pid), 'root', ROOT));
    assert.deepEqual(differences(is, should), []);
    assert.ok(Object.keys(should).length > 1);
    return { containerId, reference, tree: should };
  }

  it('every kind of entry has the content, owner, mode, time, links, device number and attributes that GNU tar gives it', async () => {
    const { containerId, reference, tree } = await checkAgainstTar([archive(everyKind())]);
    assert.equal(Object.keys(tree).length, everyKind().length, 'nothing was left out');
    const script = `cd /tree && busybox find . | sort | while read -r f; do busybox stat -c '%n|%f|%u|%g|%y|%t:%T|%N' "$f"; done; busybox find . -type f | sort | while read -r f; do busybox md5sum "$f"; done`;
    const inside = await exec(stack.cri, containerId, ['/bin/sh', '-c', script]);
    const outside = execFileSync('busybox', [
      'sh',
      '-c',
      script.replace('cd /tree', `cd ${join(reference, ROOT)}`),
    ]);
    assert.equal(inside.stderr, '');
    assert.equal(inside.stdout, outside.toString());
    assert.ok(inside.stdout.split('\n').length > everyKind().length);
  });

  it('every compression, and layers that replace, hide and add to each other, give the tree of their sequence', async () => {
    await checkAgainstTar(sequence(), { compression: ['gzip', 'zstd', 'none', 'gzip', 'zstd'] });
  });

  it('an opaque directory shows nothing of the layers below, and its own files whatever their order in the layer', async () => {
    const below = archive([
      { name: `${ROOT}/` },
      { name: `${ROOT}/a/`, uid: 4 },
      { name: `${ROOT}/a/old`, data: 'old' },
      { name: `${ROOT}/a/deep/` },
      { name: `${ROOT}/a/deep/old`, data: 'old' },
      { name: `${ROOT}/b/` },
      { name: `${ROOT}/b/old`, data: 'old' },
    ]);
    const above = archive([
      { name: `${ROOT}/a/`, mode: 0o711 },
      { name: `${ROOT}/a/first`, data: 'new' },
      { name: `${ROOT}/a/.wh..wh..opq` },
      { name: `${ROOT}/a/second`, data: 'new' },
      { name: `${ROOT}/a/deep/`, mode: 0o700 },
      { name: `${ROOT}/a/deep/new`, data: 'new' },
      { name: `${ROOT}/b/`, mode: 0o700 },
      { name: `${ROOT}/b/.wh..wh..opq` },
    ]);
    const { tree } = await checkAgainstTar([below, above]);
    assert.deepEqual(Object.keys(tree).sort(), [
      '.',
      'a',
      'a/deep',
      'a/deep/new',
      'a/first',
      'a/second',
      'b',
    ]);
  });

  it('a directory that was deleted and made again, and a file that became a directory and back, are new', async () => {
    await checkAgainstTar([
      archive([
        { name: `${ROOT}/` },
        { name: `${ROOT}/dir/` },
        { name: `${ROOT}/dir/old`, data: 'old' },
        { name: `${ROOT}/turns`, data: 'a file' },
        { name: `${ROOT}/also/` },
        { name: `${ROOT}/also/in`, data: 'old' },
      ]),
      archive([
        { name: `${ROOT}/.wh.dir` },
        { name: `${ROOT}/dir/`, mode: 0o750 },
        { name: `${ROOT}/dir/new`, data: 'new' },
        { name: `${ROOT}/.wh.turns` },
        { name: `${ROOT}/turns/`, uid: 9 },
        { name: `${ROOT}/turns/in`, data: 'in a directory now' },
        { name: `${ROOT}/.wh.also` },
        { name: `${ROOT}/also`, data: 'a file now' },
        { name: `${ROOT}/`, mtimeNs: time(5n) },
      ]),
      archive([
        { name: `${ROOT}/.wh.turns` },
        { name: `${ROOT}/turns`, data: 'a file again' },
        { name: `${ROOT}/`, mtimeNs: time(6n) },
      ]),
    ]);
  });

  it('a layer that names no parent directories keeps what the layer below says of them', async () => {
    const layers = [
      archive([
        { name: `${ROOT}/`, mode: 0o750, uid: 3, mtimeNs: time(1_000n) },
        { name: `${ROOT}/home/`, mode: 0o700, uid: 1000, gid: 1000, mtimeNs: time(2_000n) },
        { name: `${ROOT}/home/kept`, data: 'kept', uid: 1000 },
        { name: `${ROOT}/sticky/`, mode: 0o1777, xattrs: { 'user.why': 'shared' } },
      ]),
      archive([
        { name: `${ROOT}/home/added`, data: 'added', uid: 1000 },
        { name: `${ROOT}/sticky/sub/file`, data: 'x' },
        { name: `${ROOT}/.wh.nothing` },
      ]),
    ];
    const { pid } = await runOn(layers);
    const tree = readTree(join('/proc', String(pid), 'root', ROOT));
    const facts = (path: string) => JSON.parse(tree[path] ?? '{}') as Record<string, unknown>;
    assert.deepEqual(facts('.'), { mode: '40750', owner: '3:0', mtimeNs: String(time(1_000n)) });
    assert.deepEqual(facts('home'), {
      mode: '40700',
      owner: '1000:1000',
      mtimeNs: String(time(2_000n)),
    });
    assert.equal(facts('sticky')['mode'], '41777');
    assert.deepEqual(facts('sticky')['xattrs'], [
      `user.why=${Buffer.from('shared').toString('hex')}`,
    ]);
    assert.equal(facts('sticky/sub')['mode'], '40755', 'a directory that no layer describes');
    assert.ok(tree['home/kept'] !== undefined && tree['home/added'] !== undefined);
  });

  for (const format of ['gnu', 'posix', 'ustar', 'v7'] as const) {
    it(`a layer written by GNU tar in its ${format} format is unpacked as GNU tar unpacks it`, async () => {
      const source = mkdtempSync(join(directory, 'source-'));
      makeSourceTree(join(source, ROOT), format);
      const extra = format === 'posix' ? ['--xattrs', '--xattrs-include=*'] : [];
      const layer = execFileSync(
        'tar',
        ['-cf', '-', `--format=${format}`, ...extra, '-C', source, ROOT],
        { maxBuffer: 64 * 1024 * 1024 },
      );
      await checkAgainstTar([layer]);
    });
  }

  it('names that are no UTF-8 keep their bytes', async () => {
    const names = [Buffer.from([0x66, 0xff]), Buffer.from([0x66, 0xfe]), Buffer.from('ő€😀')];
    await checkAgainstTar([
      archive([
        { name: `${ROOT}/` },
        ...names.map(
          (name): ArchiveEntry => ({
            name: Buffer.concat([Buffer.from(`${ROOT}/`), name]),
            data: name,
            mtimeNs: time(77n, 5n),
          }),
        ),
      ]),
    ]);
  });

  it('an image of a hundred layers is mounted whole and in order', async () => {
    const layers = Array.from({ length: 100 }, (_, index) =>
      archive([
        { name: `${ROOT}/`, mtimeNs: time(BigInt(index + 1)) },
        { name: `${ROOT}/last`, data: `${index}` },
        { name: `${ROOT}/layer-${index}`, data: `${index}` },
      ]),
    );
    const { tree } = await checkAgainstTar(layers);
    assert.equal(Object.keys(tree).length, 102);
  });

  it('the same layers look the same inside gVisor', async () => {
    const { containerId } = await runOn(sequence(), { handler: 'gvisor' });
    const reference = mkdtempSync(join(directory, 'gnu-'));
    unpackWithGnuTar(sequence(), reference);
    const script = `busybox find . | sort | while read -r f; do busybox stat -c '%n|%f|%u|%g|%Y' "$f"; done; busybox find . -type f | sort | while read -r f; do busybox md5sum "$f"; done`;
    const inside = await exec(stack.cri, containerId, [
      '/bin/sh',
      '-c',
      `cd /${ROOT} && ${script}`,
    ]);
    const outside = execFileSync('busybox', ['sh', '-c', `cd ${reference}/${ROOT} && ${script}`]);
    assert.equal(inside.stdout, outside.toString());
    assert.ok(inside.stdout.includes('./replaced|'));
  });
});

/** One of each kind and attribute; each entry one file. */
function everyKind(): ArchiveEntry[] {
  const file = (name: string, rest: Partial<ArchiveEntry> = {}): ArchiveEntry => ({
    name: `${ROOT}/${name}`,
    data: name,
    ...rest,
  });
  return [
    {
      name: `${ROOT}/`,
      mode: 0o751,
      uid: 11,
      gid: 12,
      mtimeNs: time(1_234_567_890n, 123_456_789n),
    },
    file('plain'),
    file('empty', { data: '' }),
    file('old-kind', { type: '\0' }),
    file('contiguous', { type: '7' }),
    file('large', { data: Buffer.alloc(3_000_001, 'abc') }),
    file('nanoseconds', { mtimeNs: time(1_700_000_000n, 987_654_321n) }),
    file('before-1970', { pax: { mtime: '-1000.5' } }),
    file('after-2038', { mtimeNs: time(5_000_000_000n) }),
    file('owner', { uid: 1000, gid: 2000 }),
    file('large-owner', { uid: 3_000_000, gid: 4_200_000_000 }),
    file('setuid', { mode: 0o4755, uid: 1000 }),
    file('setgid', { mode: 0o2755, gid: 50 }),
    file('no-permissions', { mode: 0o000 }),
    file('capable', {
      mode: 0o755,
      // cap_net_raw+ep, VFS_CAP_REVISION_2 of linux/capability.h.
      xattrs: {
        'security.capability': Buffer.from('0100000200200000000000000000000000000000', 'hex'),
      },
    }),
    file('attributes', {
      uid: 7,
      xattrs: { 'user.text': 'a value = with signs', 'user.bytes': Buffer.from([0, 1, 255, 10]) },
    }),
    file('trusted', { xattrs: { 'trusted.note': 'kept' } }),
    file('hard-1', { type: '1', data: '', linkName: `${ROOT}/attributes` }),
    file('hard-2', { type: '1', data: '', linkName: `${ROOT}/hard-1` }),
    file('link', { type: '2', data: '', linkName: 'plain', uid: 5, gid: 6, mtimeNs: time(9n, 8n) }),
    file('absolute-link', { type: '2', data: '', linkName: '/etc/passwd' }),
    file('dangling', { type: '2', data: '', linkName: '../../../nowhere/at/all' }),
    file('hard-to-link', { type: '1', data: '', linkName: `${ROOT}/link` }),
    file('character', { type: '3', data: '', major: 1, minor: 5, mode: 0o666, uid: 1 }),
    file('block', { type: '4', data: '', major: 7, minor: 0, mode: 0o660, gid: 6 }),
    file('large-device', { type: '3', data: '', mode: 0o600, ...LARGE_DEVICE }),
    file('fifo', { type: '6', data: '', mode: 0o622 }),
    file('hard-fifo', { type: '1', data: '', linkName: `${ROOT}/fifo` }),
    { name: `${ROOT}/sticky/`, mode: 0o1777, mtimeNs: time(42n, 7n) },
    { name: `${ROOT}/setgid-dir/`, mode: 0o2750, gid: 33, xattrs: { 'user.kind': 'directory' } },
    file('setgid-dir/inside', { gid: 0 }),
    { name: `${ROOT}/closed/`, mode: 0o000, mtimeNs: time(43n) },
    file('closed/inside'),
    file(`${'n'.repeat(255)}`),
    { name: `${ROOT}/${'d'.repeat(120)}/` },
    { name: `${ROOT}/${'d'.repeat(120)}/${'e'.repeat(200)}/` },
    file(`${'d'.repeat(120)}/${'e'.repeat(200)}/deep`, { mtimeNs: time(3n, 3n) }),
    file('long-link', { type: '2', data: '', linkName: `${'l'.repeat(200)}/${'m'.repeat(200)}` }),
    file('spaces and\ttabs "quotes" $(no)'),
    file('-rf'),
    file('.hidden'),
    file('wh.not-a-whiteout'),
  ];
}

/** Five layers, each changing what the ones before left. */
function sequence(): Buffer[] {
  const root = (at: bigint): ArchiveEntry => ({ name: `${ROOT}/`, mtimeNs: time(at) });
  return [
    archive([
      root(1n),
      { name: `${ROOT}/replaced`, data: 'first', uid: 1, mode: 0o600 },
      { name: `${ROOT}/hidden`, data: 'goes' },
      { name: `${ROOT}/kept`, data: 'stays', uid: 2 },
      { name: `${ROOT}/dir/`, mode: 0o700 },
      { name: `${ROOT}/dir/a`, data: 'a' },
      { name: `${ROOT}/dir/b`, data: 'b' },
      { name: `${ROOT}/gone/` },
      { name: `${ROOT}/gone/x`, data: 'x' },
      { name: `${ROOT}/link`, type: '2', linkName: 'kept' },
    ]),
    archive([
      root(2n),
      { name: `${ROOT}/replaced`, data: 'second', uid: 8, mode: 0o644, mtimeNs: time(2n, 2n) },
      { name: `${ROOT}/.wh.hidden` },
      { name: `${ROOT}/.wh.gone` },
      { name: `${ROOT}/dir/`, mode: 0o755, uid: 3, mtimeNs: time(22n) },
      { name: `${ROOT}/dir/.wh.a` },
      { name: `${ROOT}/dir/c`, data: 'c' },
    ]),
    archive([
      root(3n),
      { name: `${ROOT}/hidden`, data: 'is back', gid: 4 },
      { name: `${ROOT}/link`, data: 'no link any more' },
      { name: `${ROOT}/dir/`, mode: 0o711, mtimeNs: time(33n) },
      { name: `${ROOT}/dir/a`, type: '2', linkName: 'b' },
    ]),
    archive([
      root(4n),
      { name: `${ROOT}/twice`, data: 'the first of two in one layer' },
      { name: `${ROOT}/twice`, data: 'the second wins', mode: 0o640 },
      { name: `${ROOT}/.wh.kept` },
      { name: `${ROOT}/.wh.never-there` },
    ]),
    archive([root(5n), { name: `${ROOT}/last`, data: 'last' }]),
  ];
}

/** Real files for GNU tar to read, within what each format can say. */
function makeSourceTree(root: string, format: 'gnu' | 'posix' | 'ustar' | 'v7'): void {
  const long = format === 'v7' || format === 'ustar' ? 'n'.repeat(60) : 'n'.repeat(200);
  const deep = join(root, 'd'.repeat(20), format === 'v7' ? 'e' : 'e'.repeat(60));
  mkdirSync(deep, { recursive: true });
  writeFileSync(join(deep, long.slice(0, format === 'v7' ? 20 : undefined)), 'deep');
  writeFileSync(join(root, 'empty'), '');
  writeFileSync(join(root, 'large'), Buffer.alloc(1_500_000, 'large'), { mode: 0o640 });
  linkSync(join(root, 'large'), join(root, 'hard'));
  symlinkSync('large', join(root, 'link'));
  lutimesSync(join(root, 'link'), 1_000_000, 1_000_000);
  utimesSync(join(root, 'empty'), 1_600_000_000, 1_600_000_000);
  execFileSync('chown', ['-h', '1234:4321', join(root, 'empty'), join(root, 'link')]);
  if (format !== 'v7') {
    execFileSync('mknod', ['-m', '622', join(root, 'fifo'), 'p']);
    execFileSync('mknod', ['-m', '660', join(root, 'device'), 'c', '10', '200']);
  }
  if (format !== 'posix') return;
  setXattr(join(root, 'large'), 'user.note', Buffer.from('kept'));
  symlinkSync('t'.repeat(300), join(root, 'long-link'));
  writeFileSync(join(root, 'ünïcödé €'), 'text');
}
