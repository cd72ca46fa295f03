// What a node wants of its images beyond pulling them: one identity everywhere, other platforms for
// some handlers, time-outs by progress, a program that judges, and honest figures of the disk.

import assert from 'node:assert/strict';
import { existsSync, readdirSync, readFileSync, statSync } from 'node:fs';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import type { ServerResponse } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { writeTar } from '@cribus/cli/tour/tar-writer.ts';
import {
  ContainerStatusRequest,
  ImageFsInfoRequest,
  type ImageSpec,
  ImageStatusRequest,
  ListContainersRequest,
  ListImagesRequest,
  PullImageRequest,
  RemoveImageRequest,
} from '@cribus/contracts/gen/cri/v1/api.ts';
import { after, afterEach, before, describe, it } from 'mocha';
import { archive } from './harness/archive.ts';
import { ARCHITECTURE, composeImage, composeIndex } from './harness/compose-image.ts';
import { type FaultyRegistry, startFaultyRegistry } from './harness/faulty-registry.ts';
import { failureOf, imagesDirectory, pullImage, removeAllImages } from './harness/image-calls.ts';
import { busyboxLayer } from './harness/images.ts';
import { assertNothingLeaked, type HostSnapshot, snapshotHost } from './harness/leaks.ts';
import { runPod } from './harness/pods.ts';
import { eventually, type Stack, startStack } from './harness/stack.ts';
import { removeAllPods } from './harness/suite.ts';

const PROGRESS_TIMEOUT_S = 1;
/** Bytes that don't shrink, so that a layer is as large on the wire. */
const NOISE = Buffer.from(
  Array.from({ length: 200_000 }, (_, index) => (Math.imul(index, 2654435761) >>> 11) & 0xff),
);

describe('images of a node', () => {
  let host: HostSnapshot;
  let stack: Stack;
  let registry: FaultyRegistry;
  let directory: string;

  before(async () => {
    host = snapshotHost();
    registry = await startFaultyRegistry();
    directory = await mkdtemp(join(tmpdir(), 'cribus-verifier-'));
    const verifier = join(directory, 'verify');
    const judge = `case "$2" in */evil*) echo "not signed by us"; exit 1;; */slow*) sleep 60;; esac`;
    await writeFile(verifier, `#!/bin/sh\ncat > ${directory}/descriptor\n${judge}\n`, {
      mode: 0o755,
    });
    stack = await startStack({
      config: [
        '[images]',
        `progress_timeout_s = ${PROGRESS_TIMEOUT_S}`,
        `verifier = "${verifier}"`,
        'verifier_timeout_s = 1',
        '[runtimes.handlers.runc]\nfamily = "runc"\nengine = "runc"',
        '[runtimes.handlers.far]\nfamily = "runc"\nengine = "crun"\nimage_platform = "linux/s390x"',
      ].join('\n'),
    });
  });
  afterEach(async () => {
    await removeAllPods(stack.cri);
    await removeAllImages(stack.cri);
    registry.reset();
  });
  after(async () => {
    await stack.destroy();
    await registry.stop();
    await rm(directory, { recursive: true });
    assertNothingLeaked(host);
  });

  const pullAs = async (image: Partial<ImageSpec>) =>
    (await stack.cri.call('pullImage', PullImageRequest.fromPartial({ image }))).imageRef;
  const statusAs = async (image: Partial<ImageSpec>) =>
    (await stack.cri.call('imageStatus', ImageStatusRequest.fromPartial({ image }))).image?.id;
  const ownerDetails = async (): Promise<string> => {
    const { info } = await stack.cri.call('status', { verbose: true });
    const owners = JSON.parse(info['owners'] ?? '[]') as { name: string; details: object }[];
    return JSON.stringify(owners.find(({ name }) => name === 'image-service')?.details);
  };

  it('PullImage, ImageStatus, ListImages, ListContainers and ContainerStatus name one image by one id', async () => {
    const image = composeImage({ layers: [writeTar(busyboxLayer())] });
    registry.publish('one/identity', 'v1', image);
    const name = `${registry.host}/one/identity:v1`;
    const pulled = await pullImage(stack.cri, name);
    const { containerId } = await runPod(stack, { image: name, script: 'sleep 600' });
    const { cri } = stack;
    const { images } = await cri.call('listImages', ListImagesRequest.fromPartial({}));
    const { containers } = await cri.call('listContainers', ListContainersRequest.fromPartial({}));
    const { status } = await cri.call(
      'containerStatus',
      ContainerStatusRequest.fromPartial({ containerId }),
    );
    const ids = [
      pulled,
      await statusAs({ image: name }),
      ...images.map(({ id }) => id),
      ...containers.map(({ imageId }) => imageId),
      status?.imageId,
    ];
    assert.deepEqual(ids, Array(5).fill(image.id));
  });

  it("a handler's configured platform decides which image of a list it pulls, finds, runs and removes, beside this machine's", async () => {
    const mine = composeImage({ layers: [writeTar(busyboxLayer())] });
    const far = composeImage({ layers: [writeTar(busyboxLayer())], architecture: 's390x' });
    registry.publish('two/platforms', 'mine', mine);
    registry.publish('two/platforms', 'far', far);
    const list = composeIndex([
      { manifest: mine.manifest, architecture: ARCHITECTURE },
      { manifest: far.manifest, architecture: 's390x' },
    ]);
    registry.publishManifest('two/platforms', 'v1', list);
    const image = `${registry.host}/two/platforms:v1`;
    assert.equal(await pullAs({ image }), mine.id);
    assert.equal(await statusAs({ image, runtimeHandler: 'far' }), undefined);
    assert.equal(await pullAs({ image, runtimeHandler: 'far' }), far.id);
    assert.equal(await statusAs({ image }), mine.id);
    assert.equal(await statusAs({ image, runtimeHandler: 'runc' }), mine.id);
    assert.equal(await statusAs({ image, runtimeHandler: 'far' }), far.id);
    const listed = await stack.cri.call('listImages', ListImagesRequest.fromPartial({}));
    assert.deepEqual(
      listed.images.map(({ id, repoTags }) => [id, repoTags]).sort(),
      [mine.id, far.id].map((id) => [id, [image]]).sort(),
    );

    for (const [handler, id] of [
      ['far', far.id],
      ['runc', mine.id],
    ] as const) {
      const { containerId } = await runPod(stack, { image, script: 'sleep 600', handler });
      const { status } = await stack.cri.call(
        'containerStatus',
        ContainerStatusRequest.fromPartial({ containerId }),
      );
      assert.equal(status?.imageId, id, handler);
    }
    await stack.cri.call(
      'removeImage',
      RemoveImageRequest.fromPartial({ image: { image, runtimeHandler: 'far' } }),
    );
    assert.equal(await statusAs({ image, runtimeHandler: 'far' }), undefined);
    assert.equal(await statusAs({ image }), mine.id);
  });

  it('RemoveImage by a tag that images of several platforms share removes them all where no handler is named', async () => {
    const images = [ARCHITECTURE, 's390x'].map((architecture) => ({
      architecture,
      ...composeImage({ layers: [writeTar(busyboxLayer())], architecture }),
    }));
    for (const { architecture, ...image } of images) {
      registry.publish('both/platforms', architecture, image);
    }
    registry.publishManifest('both/platforms', 'v1', composeIndex(images));
    const image = `${registry.host}/both/platforms:v1`;
    const listed = async () => {
      const { images } = await stack.cri.call('listImages', ListImagesRequest.fromPartial({}));
      return images.map(({ id }) => id).sort();
    };
    await pullAs({ image });
    await pullAs({ image, runtimeHandler: 'far' });
    assert.deepEqual(await listed(), images.map(({ id }) => id).sort());
    const remove = RemoveImageRequest.fromPartial({ image: { image } });
    await stack.cri.call('removeImage', remove);
    assert.deepEqual(await listed(), []);
    await pullAs({ image, runtimeHandler: 'far' });
    await stack.cri.call('removeImage', remove);
    assert.deepEqual(await listed(), [], 'also where there is none for the default handler');
  });

  it('an image of one platform alone is NOT_FOUND for a handler of another, and an unknown handler INVALID_ARGUMENT', async () => {
    registry.publish('two/platforms', 'mine', composeImage({ layers: [writeTar(busyboxLayer())] }));
    const image = `${registry.host}/two/platforms:mine`;
    await failureOf(pullAs({ image, runtimeHandler: 'far' }), {
      code: 'NOT_FOUND',
      message: /is for linux\/.*, wanted is linux\/s390x/,
    });
    await failureOf(pullAs({ image, runtimeHandler: 'kata' }), {
      code: 'INVALID_ARGUMENT',
      message: /no runtime for "kata" is configured/,
    });
  });

  it('a pull that drips for longer in all than the progress time-out succeeds, and one that stops dripping does not', async () => {
    const image = composeImage({
      layers: [archive([{ name: 'noise', data: NOISE }])],
      compression: 'none',
    });
    registry.publish('drip/drip', 'v1', image);
    const data = image.layers[0]?.data ?? Buffer.alloc(0);
    let dropsMax = Number.POSITIVE_INFINITY;
    const drip = async (response: ServerResponse) => {
      response.writeHead(200, { 'content-length': data.length });
      const piece = Math.ceil(data.length / 8);
      for (let drop = 0; drop * piece < data.length && drop < dropsMax; drop += 1) {
        response.write(data.subarray(drop * piece, (drop + 1) * piece));
        await sleep(PROGRESS_TIMEOUT_S * 300);
      }
    };
    registry.intercept = (request, response) => {
      if (!request.url?.includes(`/blobs/${image.layers[0]?.digest}`)) return false;
      if (request.headers.range !== undefined) return true;
      void drip(response);
      return true;
    };
    const name = `${registry.host}/drip/drip:v1`;
    const startedMs = performance.now();
    assert.equal(await pullImage(stack.cri, name), image.id);
    const tookMs = performance.now() - startedMs;
    assert.ok(tookMs > PROGRESS_TIMEOUT_S * 2000, `${tookMs} ms`);
    await removeAllImages(stack.cri);
    dropsMax = 3;
    await failureOf(pullImage(stack.cri, name), {
      code: 'UNKNOWN',
      message: /^RegistryUnavailable: .*for 1 s/,
    });
  });

  it('a program of the operator judges each pull before a layer is fetched, and no verdict is a refusal', async () => {
    for (const repository of ['good/app', 'evil/app', 'slow/app']) {
      registry.publish(repository, 'v1', composeImage({ layers: [writeTar(busyboxLayer())] }));
    }
    await pullImage(stack.cri, `${registry.host}/good/app:v1`);
    const said = JSON.parse(readFileSync(join(directory, 'descriptor'), 'utf8')) as {
      digest: string;
    };
    assert.match(said.digest, /^sha256:[0-9a-f]{64}$/);
    await removeAllImages(stack.cri);
    registry.requests.length = 0;
    await failureOf(pullImage(stack.cri, `${registry.host}/evil/app:v1`), {
      code: 'UNKNOWN',
      message: /^SignatureValidationFailed: .*not signed by us/,
    });
    await failureOf(pullImage(stack.cri, `${registry.host}/slow/app:v1`), {
      code: 'UNKNOWN',
      message: /^SignatureValidationFailed: .*no verdict within 1 s/,
    });
    assert.equal(registry.countOf('/blobs/'), 0);
    const { images } = await stack.cri.call('listImages', ListImagesRequest.fromPartial({}));
    assert.deepEqual(images, []);
  });

  it('what a killed pull left is deleted when the image service is back, and the freed bytes are told', async () => {
    const image = composeImage({
      layers: [archive([{ name: 'noise', data: Buffer.alloc(20_000_000, NOISE) }])],
      compression: 'none',
    });
    registry.publish('half/done', 'v1', image);
    const data = image.layers[0]?.data ?? Buffer.alloc(0);
    registry.intercept = (request, response) => {
      if (!request.url?.includes(`/blobs/${image.layers[0]?.digest}`)) return false;
      response.writeHead(200, { 'content-length': data.length });
      response.write(data.subarray(0, 15_000_000));
      return true;
    };
    const pulling = pullImage(stack.cri, `${registry.host}/half/done:v1`, { timeoutMs: 3_000 });
    const ended = pulling.catch(() => undefined);
    const ingest = join(imagesDirectory(stack), 'ingest');
    const half = await eventually('the layer is being unpacked', async () =>
      readdirSync(ingest).find((name) => existsSync(join(ingest, name, 'noise'))),
    );
    process.kill(await stack.pidOf('image-service'), 'SIGKILL');
    await eventually('the ingest is gone', async () => !existsSync(join(ingest, half)), 20_000);
    const told = await eventually('it is told', async () => {
      const details = await ownerDetails();
      return /[1-9][0-9]* ingests/.test(details) ? details : undefined;
    });
    assert.ok(Number(/: ([0-9]+) bytes since/.exec(told)?.[1]) >= 1_000_000, told);
    registry.intercept = () => false;
    await ended;
  });

  it('ImageFsInfo has the filesystems of images and of writable layers, and counts what containers write', async () => {
    registry.publish('one/usage', 'v1', composeImage({ layers: [writeTar(busyboxLayer())] }));
    const image = `${registry.host}/one/usage:v1`;
    await pullImage(stack.cri, image);
    const info = () => stack.cri.call('imageFsInfo', ImageFsInfoRequest.fromPartial({}));
    const before = (await info()).containerFilesystems[0];
    const { imageFilesystems } = await info();
    assert.equal(before?.fsId?.mountpoint, imageFilesystems[0]?.fsId?.mountpoint);
    assert.ok(statSync(before?.fsId?.mountpoint ?? '').isDirectory());
    await runPod(stack, {
      image,
      script: 'dd if=/dev/zero of=/big bs=1M count=5; sleep 600',
    });
    const after = await eventually(
      'it is measured',
      async () => {
        const now = (await info()).containerFilesystems[0];
        const grown = (now?.usedBytes?.value ?? 0n) - (before?.usedBytes?.value ?? 0n);
        return grown >= 5n * 1024n * 1024n ? now : undefined;
      },
      60_000,
    );
    assert.ok((after.inodesUsed?.value ?? 0n) > (before?.inodesUsed?.value ?? 0n));
    assert.ok(after.timestamp > (before?.timestamp ?? 0n));
  });
});
