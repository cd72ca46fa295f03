// What a container sees of its image's layers: every file as GNU tar unpacks the same layers, read
// from the host through the container's root, and by a script inside the container.

import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pushImage } from '@cribus/cli/tour/image.ts';
import { type Registry, startRegistry } from '@cribus/cli/tour/registry.ts';
import { writeTar } from '@cribus/cli/tour/tar-writer.ts';
import { ContainerStatusRequest, NamespaceMode } from '@cribus/contracts/gen/cri/v1/api.ts';
import { after, before, describe, it } from 'mocha';
import { type ArchiveEntry, archive } from './harness/archive.ts';
import { type Compression, composeImage } from './harness/compose-image.ts';
import { differences, type FileTree, readTree, unpackWithGnuTar } from './harness/file-tree.ts';
import { pullImage } from './harness/image-calls.ts';
import { busyboxLayer } from './harness/images.ts';
import { everyKind, makeSourceTree, ROOT, sequence, time } from './harness/layer-samples.ts';
import { assertNothingLeaked, type HostSnapshot, snapshotHost } from './harness/leaks.ts';
import { exec, runPod } from './harness/pods.ts';
import { type Stack, startStack } from './harness/stack.ts';
import { HANDLERS, HOST_KERNEL_HANDLERS } from './harness/suite.ts';

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

  /** Brings an image of these layers here; answers its name. */
  async function imageOf(layers: readonly Buffer[], compression?: readonly Compression[]) {
    const image = composeImage({ layers, ...(compression === undefined ? {} : { compression }) });
    pushed += 1;
    const repository = `layers/${pushed}`;
    await pushImage(image, ['v1'], {
      registry: registry.url,
      repository,
      signal: AbortSignal.timeout(30_000),
    });
    const name = `${registry.host}/${repository}:v1`;
    assert.equal(await pullImage(stack.cri, name), image.id);
    return name;
  }

  /** Runs a pod on busybox and these layers. */
  async function runOn(
    layers: readonly Buffer[],
    options: { readonly compression?: readonly Compression[]; readonly handler?: string } = {},
  ) {
    const name = await imageOf([writeTar(busyboxLayer()), ...layers], options.compression);
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
    const base = archive([
      { name: `${ROOT}/`, mode: 0o750, uid: 3, mtimeNs: time(1_000n) },
      { name: `${ROOT}/home/`, mode: 0o700, uid: 1000, gid: 1000, mtimeNs: time(2_000n) },
      { name: `${ROOT}/home/kept`, data: 'kept', uid: 1000 },
      { name: `${ROOT}/sticky/`, mode: 0o1777, xattrs: { 'user.why': 'shared' } },
      { name: `${ROOT}/fresh/`, mode: 0o700 },
    ]);
    const otherBase = archive([
      { name: `${ROOT}/`, mode: 0o711, uid: 4 },
      { name: `${ROOT}/home/`, mode: 0o770, uid: 2000 },
    ]);
    const added = archive([
      { name: `${ROOT}/home/added`, data: 'added', uid: 1000 },
      { name: `${ROOT}/sticky/sub/file`, data: 'x' },
      { name: `${ROOT}/.wh.fresh` },
      { name: `${ROOT}/fresh/file`, data: 'x' },
    ]);
    const { pid } = await runOn([base, added]);
    const tree = readTree(join('/proc', String(pid), 'root', ROOT));
    const factsIn = (files: FileTree, path: string) =>
      JSON.parse(files[path] ?? '{}') as Record<string, unknown>;
    assert.deepEqual(factsIn(tree, '.'), {
      mode: '40750',
      owner: '3:0',
      mtimeNs: String(time(1_000n)),
    });
    assert.deepEqual(factsIn(tree, 'home'), {
      mode: '40700',
      owner: '1000:1000',
      mtimeNs: String(time(2_000n)),
    });
    assert.equal(factsIn(tree, 'sticky')['mode'], '41777');
    const why = `user.why=${Buffer.from('shared').toString('hex')}`;
    assert.deepEqual(factsIn(tree, 'sticky')['xattrs'], [why]);
    assert.equal(factsIn(tree, 'sticky/sub')['mode'], '40755', 'no layer describes it');
    assert.equal(factsIn(tree, 'fresh')['mode'], '40755', 'it was deleted and is another');
    assert.ok(tree['home/kept'] !== undefined && tree['home/added'] !== undefined);
    const second = await runOn([otherBase, added]);
    const otherTree = readTree(join('/proc', String(second.pid), 'root', ROOT));
    assert.equal(factsIn(otherTree, '.')['owner'], '4:0', 'the same layer over another base');
    assert.equal(factsIn(otherTree, 'home')['mode'], '40770');
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

  /** An empty layer and one with a file come twice each, the latter over one that replaced its file. */
  const repeated = () => {
    const empty = archive([]);
    const first = archive([
      { name: `${ROOT}/` },
      { name: `${ROOT}/file`, data: 'first\n' },
      { name: `${ROOT}/kept`, data: 'kept\n' },
    ]);
    const second = archive([
      { name: `${ROOT}/file`, data: 'second\n' },
      { name: `${ROOT}/.wh.kept` },
      { name: `${ROOT}/other`, data: 'other\n' },
    ]);
    return [empty, first, empty, second, first, empty];
  };

  it('an image that has a layer twice shows what GNU tar makes of its sequence', async () => {
    const { tree } = await checkAgainstTar(repeated());
    assert.deepEqual(Object.keys(tree).sort(), ['.', 'file', 'kept', 'other']);
  });

  const IDS = [{ containerId: 0, hostId: 4_145_283_072, length: 65_536 }];
  const usernsOptions = { mode: NamespaceMode.POD, uids: IDS, gids: IDS };
  const ways = [
    ...HANDLERS.map((handler) => ({ handler, how: handler, mapped: false })),
    ...HOST_KERNEL_HANDLERS.map((handler) => {
      return { handler, how: `${handler} with a user namespace`, mapped: true };
    }),
  ];
  for (const { handler, how, mapped } of ways) {
    it(`an image that has layers twice runs under ${how}, and is a volume there`, async () => {
      const image = await imageOf([writeTar(busyboxLayer()), ...repeated()]);
      const empty = await imageOf([archive([]), archive([])]);
      const namespaceOptions = {
        pid: NamespaceMode.CONTAINER,
        ...(mapped ? { usernsOptions } : {}),
      };
      const linux = { securityContext: { namespaceOptions } };
      const mappings = mapped ? { uidMappings: IDS, gidMappings: IDS } : {};
      const volume = (containerPath: string, of: string) => ({
        containerPath,
        image: { image: of },
        readonly: true,
        ...mappings,
      });
      const { containerId } = await runPod(stack, {
        image,
        script: 'sleep 300',
        handler,
        pod: { linux },
        container: { linux, mounts: [volume('/volume', image), volume('/empty', empty)] },
      });
      const script = `cd /${ROOT} && cat file kept other && cd /volume/${ROOT} && cat file kept other && ls -A /empty`;
      const { stdout, stderr } = await exec(stack.cri, containerId, ['/bin/sh', '-c', script]);
      assert.equal(stdout, 'first\nkept\nother\n'.repeat(2), stderr);
    });
  }

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
