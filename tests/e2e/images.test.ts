// Images against a real registry: their names, sizes and owners in every call of CRI's image service,
// and their files, compared with what GNU tar makes of the same layers.

import assert from 'node:assert/strict';
import { statSync } from 'node:fs';
import {
  type BuiltImage,
  buildImage,
  digestOf,
  pushImage,
  pushManifest,
} from '@cribus/cli/tour/image.ts';
import { type Registry, startRegistry } from '@cribus/cli/tour/registry.ts';
import {
  ContainerStatusRequest,
  ImageFsInfoRequest,
  ImageSpec,
  ImageStatusRequest,
  ListContainersRequest,
  RemoveContainerRequest,
  RemovePodSandboxRequest,
} from '@cribus/contracts/gen/cri/v1/api.ts';
import { after, before, beforeEach, describe, it } from 'mocha';
import { archive } from './harness/archive.ts';
import {
  ARCHITECTURE,
  type ComposedImage,
  composeImage,
  composeIndex,
} from './harness/compose-image.ts';
import {
  failureOf,
  imageFilesystem,
  imageStatus,
  listImages,
  pullImage,
  refusePull,
  removeAllImages,
  removeImage,
  storedImages,
} from './harness/image-calls.ts';
import { busyboxLayer } from './harness/images.ts';
import { assertNothingLeaked, type HostSnapshot, snapshotHost } from './harness/leaks.ts';
import { exec, runPod } from './harness/pods.ts';
import { eventually, type Stack, startStack } from './harness/stack.ts';

/** A layer of one file, different for each text. */
const layerOf = (text: string) => archive([{ name: 'app/' }, { name: 'app/text', data: text }]);
const DATA_BYTES = 700_000;

describe('images of a real registry', () => {
  let host: HostSnapshot;
  let stack: Stack;
  let registry: Registry;
  before(async () => {
    host = snapshotHost();
    registry = await startRegistry();
    const pinned = JSON.stringify([`${registry.host}/pins/keep*`, `${registry.host}/pins/one:v1`]);
    stack = await startStack({ config: `[images]\npinned = ${pinned}\n` });
  });
  beforeEach(async () => removeAllImages(stack.cri));
  after(async () => {
    await stack.destroy();
    await registry.stop();
    assertNothingLeaked(host);
  });

  const push = async (image: BuiltImage, repository: string, ...tags: string[]) => {
    await pushImage(image, tags, target(repository));
    return `${registry.host}/${repository}`;
  };
  const target = (repository: string) => ({
    registry: registry.url,
    repository,
    signal: AbortSignal.timeout(30_000),
  });

  it('PullImage by tag answers the configuration digest, and every name of the image finds it with the same id, names and size', async () => {
    const image = composeImage({ layers: [layerOf('one'), layerOf('two')] });
    const name = await push(image, 'names/app', 'v1');
    assert.equal(await pullImage(stack.cri, `${name}:v1`), image.id);
    const hex = image.id.slice('sha256:'.length);
    const digestName = `${name}@${image.manifest.digest}`;
    for (const spelled of [`${name}:v1`, image.id, hex, hex.slice(0, 12), digestName]) {
      const found = await imageStatus(stack.cri, spelled);
      assert.ok(found !== undefined, `${spelled} finds nothing`);
      assert.equal(found.id, image.id);
      assert.deepEqual(found.repoTags, [`${name}:v1`]);
      assert.deepEqual(found.repoDigests, [digestName]);
      assert.equal(found.size, image.sizeBytes, 'compressed layers and configuration');
    }
    const listed = await listImages(stack.cri);
    assert.deepEqual(listed, [await imageStatus(stack.cri, image.id)]);
  });

  it('an image named without a tag is its latest', async () => {
    const image = composeImage({ layers: [layerOf('latest')] });
    const name = await push(image, 'names/untagged', 'latest', 'old');
    assert.equal(await pullImage(stack.cri, name), image.id);
    assert.deepEqual((await imageStatus(stack.cri, name))?.repoTags, [`${name}:latest`]);
    assert.equal(await imageStatus(stack.cri, `${name}:old`), undefined);
  });

  it('an image pulled by digest has that digest and no tag, and gets the tag by a later pull', async () => {
    const image = composeImage({ layers: [layerOf('by digest')] });
    const name = await push(image, 'names/digest', 'v1');
    const byDigest = `${name}@${image.manifest.digest}`;
    assert.equal(await pullImage(stack.cri, byDigest), image.id);
    const status = await imageStatus(stack.cri, byDigest);
    assert.deepEqual(status?.repoTags, []);
    assert.deepEqual(status?.repoDigests, [byDigest]);
    await pullImage(stack.cri, `${name}:v1`);
    assert.deepEqual((await imageStatus(stack.cri, image.id))?.repoTags, [`${name}:v1`]);
    const both = `${name}:v1@${image.manifest.digest}`;
    assert.equal(await pullImage(stack.cri, both), image.id);
  });

  it('cribus pull brings an image, and says its size, its id, or why not', async () => {
    const layers = [[{ kind: 'directory' as const, path: 'typed', mode: 0o755 }]];
    const image = await push(buildImage({ layers, config: {} }), 'test/typed', 'v1');
    const { code, stdout, stderr } = await stack.cribus('pull', `${image}:v1`);
    assert.equal(code, 0, stderr);
    assert.match(stdout, new RegExp(`^Pulling ${image}:v1$`, 'm'));
    const id = /^Pulled in [\d.]+ s \([\d.]+ ?\w+\): (sha256:[0-9a-f]{64})$/m.exec(stdout)?.[1];
    assert.deepEqual(
      (await listImages(stack.cri)).map((one) => [one.id, one.repoTags]),
      [[id, [`${image}:v1`]]],
    );
    const absent = await stack.cribus('pull', `${image}:v2`);
    assert.equal(absent.code, 1);
    assert.match(absent.stderr, /^cribus: [^\n]*test\/typed:v2[^\n]*\n$/);
  });

  it('ImageStatus of an absent image answers without an image and without an error', async () => {
    for (const name of [
      `${registry.host}/not/there:v1`,
      `${registry.host}/not/there@${digestOf(Buffer.from('x'))}`,
      'sha256:0000000000000000000000000000000000000000000000000000000000000000',
      'busybox',
    ]) {
      assert.equal(await imageStatus(stack.cri, name), undefined, name);
    }
  });

  it('ListImages lists each image once however many tags it has, and its filter takes any name', async () => {
    const first = composeImage({ layers: [layerOf('first')] });
    const second = composeImage({ layers: [layerOf('second')] });
    const name = await push(first, 'lists/one', 'a', 'b', 'c');
    const other = await push(second, 'lists/two', 'latest');
    for (const tag of ['a', 'b', 'c']) await pullImage(stack.cri, `${name}:${tag}`);
    await pullImage(stack.cri, other);
    const listed = await listImages(stack.cri);
    assert.deepEqual(listed.map(({ id }) => id).sort(), [first.id, second.id].sort());
    assert.deepEqual(
      listed.find(({ id }) => id === first.id)?.repoTags,
      ['a', 'b', 'c'].map((tag) => `${name}:${tag}`),
    );
    for (const filter of [`${name}:b`, first.id, `${name}@${first.manifest.digest}`]) {
      const found = (await listImages(stack.cri, filter)).map(({ id }) => id);
      assert.deepEqual(found, [first.id], filter);
    }
    assert.deepEqual(await listImages(stack.cri, `${name}:absent`), []);
  });

  it('RemoveImage by one tag takes all names of the image, also those of another registry', async () => {
    const image = composeImage({ layers: [layerOf('in two registries')] });
    const other = await startRegistry();
    try {
      const name = await push(image, 'remove/app', 'a', 'b');
      await pushImage(image, ['c'], { ...target('elsewhere/app'), registry: other.url });
      const names = [`${name}:a`, `${name}:b`, `${other.host}/elsewhere/app:c`];
      for (const one of names) assert.equal(await pullImage(stack.cri, one), image.id);
      assert.deepEqual((await imageStatus(stack.cri, image.id))?.repoTags, names);
      await removeImage(stack.cri, `${name}:b`);
      for (const one of [...names, image.id]) {
        assert.equal(await imageStatus(stack.cri, one), undefined, one);
      }
      assert.deepEqual(await listImages(stack.cri), []);
    } finally {
      await other.stop();
    }
  });

  it('RemoveImage works by tag, digest and id, of an absent image too, and many times at once', async () => {
    const image = composeImage({ layers: [layerOf('removed')] });
    const name = await push(image, 'remove/forms', 'v1');
    const forms = [`${name}:v1`, `${name}@${image.manifest.digest}`, image.id, image.id.slice(7)];
    for (const form of forms) {
      await pullImage(stack.cri, `${name}:v1`);
      await Promise.all(Array.from({ length: 8 }, () => removeImage(stack.cri, form)));
      assert.deepEqual(await listImages(stack.cri), [], form);
      await removeImage(stack.cri, form);
    }
    const { layers, ingests, records } = await storedImages(stack);
    assert.deepEqual({ layers, ingests, records }, { layers: [], ingests: [], records: [] });
  });

  it('a tag that was pushed again moves to the new image, and the old one keeps its digest', async () => {
    const old = composeImage({ layers: [layerOf('old')] });
    const fresh = composeImage({ layers: [layerOf('fresh')] });
    const name = await push(old, 'moves/app', 'v1');
    await pullImage(stack.cri, `${name}:v1`);
    await push(fresh, 'moves/app', 'v1');
    assert.equal(await pullImage(stack.cri, `${name}:v1`), fresh.id);
    assert.equal((await imageStatus(stack.cri, `${name}:v1`))?.id, fresh.id);
    const before = await imageStatus(stack.cri, old.id);
    assert.deepEqual(before?.repoTags, []);
    assert.deepEqual(before?.repoDigests, [`${name}@${old.manifest.digest}`]);
  });

  it('an image says its user as a number or as a name, never both', async () => {
    const users = { '1000:1000': { uid: 1000n }, '0': { uid: 0n }, 'app:staff': { name: 'app' } };
    for (const [user, should] of Object.entries(users)) {
      const image = composeImage({ layers: [layerOf(user)], config: { User: user } });
      const name = await push(image, 'users/app', 'v1');
      await pullImage(stack.cri, `${name}:v1`);
      const status = await imageStatus(stack.cri, `${name}:v1`);
      assert.equal(status?.uid?.value, 'uid' in should ? should.uid : undefined, user);
      assert.equal(status?.username, 'name' in should ? should.name : '', user);
    }
  });

  it('an image has a specification with its id and the annotations of its manifest', async () => {
    const annotations = { 'org.opencontainers.image.version': '1.36', 'test.example/a': 'b' };
    const image = composeImage({
      layers: [layerOf('annotated')],
      amendManifest: (manifest) => ({ ...manifest, annotations }),
    });
    const name = await push(image, 'annotated/app', 'v1');
    await pullImage(stack.cri, `${name}:v1`);
    const [listed] = await listImages(stack.cri);
    assert.deepEqual(listed?.spec, ImageSpec.fromPartial({ image: image.id, annotations }));
    assert.equal(await pullImage(stack.cri, `${name}:v1`), listed.spec?.image);
    await removeImage(stack.cri, listed.spec?.image ?? '');
    assert.deepEqual(await listImages(stack.cri), []);
  });

  it('images that the configuration pins are pinned and others are not', async () => {
    const should = { 'pins/keep-me': true, 'pins/one': true, 'pins/other': false };
    for (const [repository, pinned] of Object.entries(should)) {
      const image = composeImage({ layers: [layerOf(repository)] });
      const name = await push(image, repository, 'v1');
      await pullImage(stack.cri, `${name}:v1`);
      assert.equal((await imageStatus(stack.cri, image.id))?.pinned, pinned, repository);
    }
  });

  it('a verbose ImageStatus shows the image configuration and its layers as JSON', async () => {
    const image = composeImage({ layers: [layerOf('verbose')], config: { Labels: { a: 'b' } } });
    const name = await push(image, 'verbose/app', 'v1');
    await pullImage(stack.cri, `${name}:v1`);
    const { info } = await stack.cri.call(
      'imageStatus',
      ImageStatusRequest.fromPartial({ image: { image: `${name}:v1` }, verbose: true }),
    );
    const parsed = JSON.parse(info['info'] ?? '') as {
      imageSpec: { config: { Labels: unknown }; rootfs: { diff_ids: unknown } };
    };
    assert.deepEqual(parsed.imageSpec.config.Labels, { a: 'b' });
    assert.deepEqual(parsed.imageSpec.rootfs.diff_ids, image.diffIds);
  });

  it('ImageFsInfo names a directory that exists, and its use grows by a pull and shrinks by a removal', async () => {
    const before = await imageFilesystem(stack.cri);
    assert.ok(statSync(before.fsId?.mountpoint ?? '').isDirectory());
    const ageNs = BigInt(Date.now()) * 1_000_000n - before.timestamp;
    assert.ok(ageNs >= -1_000_000_000n && ageNs < 60_000_000_000n, `${ageNs} ns old`);
    const image = composeImage({
      layers: [archive([{ name: 'data', data: Buffer.alloc(DATA_BYTES, 'x') }])],
    });
    const name = await push(image, 'usage/app', 'v1');
    await pullImage(stack.cri, `${name}:v1`);
    const grown = await eventually('the layer is measured', async () => {
      const now = await imageFilesystem(stack.cri);
      const used = (now.usedBytes?.value ?? 0n) - (before.usedBytes?.value ?? 0n);
      return used >= BigInt(DATA_BYTES) ? now : undefined;
    });
    assert.ok((grown.inodesUsed?.value ?? 0n) > (before.inodesUsed?.value ?? 0n));
    await removeImage(stack.cri, `${name}:v1`);
    const shrunk = await imageFilesystem(stack.cri);
    assert.equal(shrunk.usedBytes?.value, before.usedBytes?.value);
    const both = await stack.cri.call('imageFsInfo', ImageFsInfoRequest.fromPartial({}));
    assert.equal(both.imageFilesystems.length, 1);
    for (const one of both.containerFilesystems) {
      assert.ok(statSync(one.fsId?.mountpoint ?? '').isDirectory());
    }
  });

  it('a container on an image that was removed keeps its files, and the layers go with its own removal', async () => {
    const image = buildImage({
      layers: [busyboxLayer()],
      config: { Cmd: ['/bin/sh'], Env: ['PATH=/bin'] },
    });
    const name = await push(image, 'used/busybox', 'v1');
    const id = await pullImage(stack.cri, `${name}:v1`);
    const pod = await runPod(stack, { image: `${name}:v1`, script: 'sleep 300' });
    const { status } = await stack.cri.call(
      'containerStatus',
      ContainerStatusRequest.fromPartial({ containerId: pod.containerId }),
    );
    assert.equal(status?.imageId, id, 'the id by which the kubelet counts use');
    assert.equal(status?.imageRef, `${name}@${image.manifest.digest}`);
    assert.equal(status?.image?.image, `${name}:v1`);
    const { containers } = await stack.cri.call(
      'listContainers',
      ListContainersRequest.fromPartial({}),
    );
    assert.deepEqual(
      containers.map(({ imageId, imageRef }) => ({ imageId, imageRef })),
      [{ imageId: id, imageRef: status?.imageRef }],
    );
    await removeImage(stack.cri, id);
    assert.deepEqual(await listImages(stack.cri), []);
    const read = await exec(stack.cri, pod.containerId, ['cat', '/www/index.html']);
    assert.equal(read.stdout, 'hello from a pod\n');
    assert.equal((await storedImages(stack)).layers.length, 1);
    await stack.cri.call(
      'removeContainer',
      RemoveContainerRequest.fromPartial({ containerId: pod.containerId }),
    );
    await stack.cri.call(
      'removePodSandbox',
      RemovePodSandboxRequest.fromPartial({ podSandboxId: pod.podId }),
    );
    await eventually('the layer goes', async () => {
      return (await storedImages(stack)).layers.length === 0;
    });
  });

  it('a pull whose caller has one millisecond is DEADLINE_EXCEEDED, and a later pull has the image', async () => {
    const image = composeImage({ layers: [layerOf('late')] });
    const name = await push(image, 'deadline/app', 'v1');
    await failureOf(pullImage(stack.cri, `${name}:v1`, { timeoutMs: 1 }), {
      code: 'DEADLINE_EXCEEDED',
      message: /./,
    });
    assert.equal(await pullImage(stack.cri, `${name}:v1`), image.id);
    assert.equal((await listImages(stack.cri)).length, 1);
  });

  it('images of both media type families and of every compression are pulled from one registry', async () => {
    const forms: ComposedImage[] = [];
    for (const docker of [false, true]) {
      for (const compression of ['gzip', 'zstd', 'none'] as const) {
        forms.push(
          composeImage({ layers: [layerOf(`${docker} ${compression}`)], compression, docker }),
        );
      }
    }
    forms.push(
      composeImage({
        layers: [layerOf('mixed 1'), layerOf('mixed 2'), layerOf('mixed 3')],
        compression: ['zstd', 'none', 'gzip'],
      }),
    );
    for (const [index, image] of forms.entries()) {
      const name = await push(image, `forms/${index}`, 'v1');
      assert.equal(await pullImage(stack.cri, `${name}:v1`), image.id);
      const status = await imageStatus(stack.cri, `${name}:v1`);
      assert.equal(status?.size, image.sizeBytes);
    }
    assert.equal((await storedImages(stack)).layers.length, 9);
  });

  it("a list of manifests gives this machine's image, in OCI's and Docker's form, and its digest is the list's", async () => {
    for (const docker of [false, true]) {
      const mine = composeImage({ layers: [layerOf(`mine ${docker}`)], docker });
      const foreign = composeImage({
        layers: [layerOf(`foreign ${docker}`)],
        docker,
        architecture: 's390x',
      });
      const repository = `lists/${docker ? 'docker' : 'oci'}`;
      const name = await push(foreign, repository, foreign.manifest.digest);
      await push(mine, repository, mine.manifest.digest);
      const index = composeIndex(
        [
          { manifest: foreign.manifest, architecture: 's390x' },
          { manifest: mine.manifest, architecture: ARCHITECTURE },
        ],
        { docker },
      );
      await pushManifest(index, 'v1', target(repository));
      assert.equal(await pullImage(stack.cri, `${name}:v1`), mine.id);
      const status = await imageStatus(stack.cri, `${name}:v1`);
      assert.deepEqual(status?.repoDigests, [`${name}@${index.digest}`]);
      await removeImage(stack.cri, mine.id);
      assert.equal(await pullImage(stack.cri, `${name}@${index.digest}`), mine.id);
    }
  });

  it('a list without this platform is NOT_FOUND, says what it has, and leaves nothing', async () => {
    const foreign = composeImage({ layers: [layerOf('s390x')], architecture: 's390x' });
    const name = await push(foreign, 'lists/foreign', foreign.manifest.digest, 'single');
    const index = composeIndex([{ manifest: foreign.manifest, architecture: 's390x' }]);
    await pushManifest(index, 'v1', target('lists/foreign'));
    await refusePull(stack, `${name}:v1`, { code: 'NOT_FOUND', message: /linux\/s390x/ });
    await refusePull(stack, `${name}:single`, { code: 'NOT_FOUND', message: /linux\/s390x/ });
  });

  it('a list that leaves platforms to the configurations gives its first image, and never an attestation or one that can not run here', async () => {
    const mine = composeImage({ layers: [layerOf('silent')] });
    const foreign = composeImage({ layers: [layerOf('foreign')], architecture: 's390x' });
    const attached = composeImage({ layers: [layerOf('attached')] });
    const repository = 'lists/silent';
    const name = await push(mine, repository, mine.manifest.digest);
    for (const image of [foreign, attached]) await push(image, repository, image.manifest.digest);
    const annotations = { 'vnd.docker.reference.type': 'attestation-manifest' };
    const entries = [
      { manifest: foreign.manifest, architecture: 's390x' },
      { manifest: attached.manifest, annotations },
      { manifest: mine.manifest },
    ];
    await pushManifest(composeIndex(entries), 'v1', target(repository));
    assert.equal(await pullImage(stack.cri, `${name}:v1`), mine.id);
    await removeImage(stack.cri, mine.id);
    const silent = [{ manifest: foreign.manifest }, { manifest: mine.manifest }];
    await pushManifest(composeIndex(silent), 'v2', target(repository));
    await refusePull(stack, `${name}:v2`, { code: 'NOT_FOUND', message: /is for linux\/s390x/ });
    await pushManifest(composeIndex(entries.slice(0, 2)), 'v3', target(repository));
    await refusePull(stack, `${name}:v3`, { code: 'NOT_FOUND', message: /only linux\/s390x/ });
  });

  it('an unknown repository, tag and digest are NOT_FOUND, name the reference, and leave nothing', async () => {
    const image = composeImage({ layers: [layerOf('known')] });
    const name = await push(image, 'unknown/app', 'v1');
    const digest = digestOf(Buffer.from('nobody has this'));
    await pullImage(stack.cri, `${name}:v1`);
    // Its manifest is here, but not in that repository.
    const elsewhere = `${registry.host}/nobody/app@${image.manifest.digest}`;
    const tag = `${registry.host}/nobody/app:v1`;
    for (const absent of [tag, elsewhere, `${name}:v2`, `${name}@${digest}`]) {
      const message = new RegExp(absent.replaceAll('.', '\\.'));
      await refusePull(stack, absent, { code: 'NOT_FOUND', message });
    }
  });
});
