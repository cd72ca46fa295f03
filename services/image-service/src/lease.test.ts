import assert from 'node:assert/strict';
import { readdirSync } from 'node:fs';
import type { VerbContext } from '@cribus/chassis/owner.ts';
import { isFailure } from '@cribus/contracts/failure.ts';
import type { ObjectReport } from '@cribus/contracts/gen/node/v1/records.ts';
import { RemoveImageRequest } from '@cribus/contracts/gen/node/v1/verbs.ts';
import { hostPlatform, parsePlatform } from '@cribus/contracts/image-platform.ts';
import { systemClock } from '@cribus/host/clock.ts';
import { afterEach, beforeEach, describe, it } from 'mocha';
import { type ImageStack, openImageStack } from './testing/image-stack.ts';
import {
  publishImage,
  type RegistryServer,
  startRegistryServer,
} from './testing/registry-server.ts';
import { buildTar } from './testing/tar-builder.ts';
import { describe as describeImage } from './verbs/describe.ts';
import { endLease } from './verbs/end-lease.ts';
import { imageFsInfo } from './verbs/image-fs-info.ts';
import { removeImage } from './verbs/remove-image.ts';
import { takeLease } from './verbs/take-lease.ts';
import { createWritableLayers } from './writable-layers.ts';

describe('leases and removal', () => {
  let registry: RegistryServer;
  let stack: ImageStack;
  let name: string;
  let id: string;
  const signal = new AbortController().signal;
  const context = () => ({ signal, changed: [] as ObjectReport[] }) as unknown as VerbContext;
  beforeEach(async () => {
    registry = await startRegistryServer();
    stack = await openImageStack(
      '[runtimes.handlers.runc]\nfamily = "runc"\nengine = "runc"\n' +
        '[runtimes.handlers.far]\nfamily = "runc"\nengine = "crun"\nimage_platform = "linux/s390x"\n',
    );
    const layers = ['low', 'top'].map((data) => buildTar([{ name: data, data }]));
    publishImage(registry, { path: 'app', tag: 'v1', layers });
    publishImage(registry, { path: 'app', tag: 'v2', layers });
    name = `${registry.host}/app:v1`;
    id = (await stack.pull({ image: name, auth: undefined, platform: hostPlatform(), signal }))
      .imageId;
    await stack.pull({
      image: `${registry.host}/app:v2`,
      auth: undefined,
      platform: hostPlatform(),
      signal,
    });
  });
  afterEach(async () => {
    await registry.close();
    await stack.close();
  });
  const take = (leaseId: string, image: string, volumeImages: string[] = []) =>
    takeLease(stack)({ leaseId, handler: 'runc', image, volumeImages }, context());
  const remove = async (image: string) => {
    const removing = context();
    await removeImage(stack)(RemoveImageRequest.fromPartial({ image: { image } }), removing);
    return removing.changed;
  };
  const layers = () => readdirSync(stack.store.paths.layers).length;

  it('answers the layers topmost first, by any name, and the same again', async () => {
    const record = stack.store.images.get(id);
    const wanted = record?.layers.map((layer) => layer.name).reverse();
    const digest = record?.repoDigests[0] ?? '';
    for (const image of [id, id.slice('sha256:'.length), name, digest, id.slice(7, 19)]) {
      const lease = await take('c1', image);
      assert.deepEqual(lease.layerNames, wanted);
      assert.equal(lease.image?.id, id);
      assert.equal(lease.layersDir, stack.store.paths.layers);
    }
    assert.equal(stack.store.leases.all().length, 1);
    await assert.rejects(take('c2', 'absent'), (error) => isFailure(error, 'not_found'));
    await assert.rejects(take('../c', name), (error) => isFailure(error, 'invalid_argument'));
    assert.equal(stack.store.leases.all().length, 1);
  });

  it('names a layer that an image has twice where it is topmost, also of an older lease', async () => {
    const [low, top, none] = ['low', 'top', ''].map((data) =>
      buildTar(data === '' ? [] : [{ name: data, data }]),
    ) as [Buffer, Buffer, Buffer];
    publishImage(registry, { path: 'twice', tag: 'v1', layers: [none, low, none, top, low, none] });
    const twice = `${registry.host}/twice:v1`;
    await stack.pull({ image: twice, auth: undefined, platform: hostPlatform(), signal });
    const { image, layerNames, volumes } = await take('c1', twice, [twice]);
    const all = image?.layers.map((layer) => layer.name) ?? [];
    assert.equal(all.length, 6);
    const wanted = [all[5], all[4], all[3]];
    assert.deepEqual(layerNames, wanted);
    assert.deepEqual(volumes[0]?.layerNames, wanted);
    const lease = stack.store.leases.get('c1');
    assert.ok(lease !== undefined);
    await stack.store.leases.put({
      ...lease,
      layerNames: all.toReversed(),
      volumes: lease.volumes.map((volume) => ({ ...volume, layerNames: all.toReversed() })),
    });
    await remove(twice);
    const again = await take('c1', twice, [twice]);
    assert.deepEqual([again.layerNames, again.volumes[0]?.layerNames], [wanted, wanted]);
  });

  it('removes all names at once, and the layers only when the last lease has ended', async () => {
    await take('c1', id);
    const changed = await remove(`${registry.host}/app:v2`);
    assert.deepEqual(
      changed.map((report) => [report.id, report.deleted]),
      [[id, true]],
    );
    assert.equal(stack.store.find(name), undefined);
    assert.equal(layers(), 2);
    const reopened = await stack.reopen();
    assert.equal(reopened.leases.all().length, 1, 'leases outlive a restart');
    assert.deepEqual((await take('c1', id)).layerNames.length, 2, 'taken again, it is the same');
    const end = endLease(stack);
    await end({ leaseId: 'c1' }, context());
    await end({ leaseId: 'c1' }, context());
    for (let tries = 0; tries < 100 && layers() > 0; tries += 1) await systemClock.sleep(20);
    assert.equal(layers(), 0);
    assert.deepEqual(await remove(name), []);
  });

  it('removes the images of all platforms by the tag that they share, and one by its handler', async () => {
    const image = { path: 'app', tag: 'v1', architecture: 's390x', layers: [buildTar([])] };
    const { id: farId } = publishImage(registry, image);
    const pullFar = () =>
      stack.pull({ image: name, auth: undefined, platform: parsePlatform('linux/s390x'), signal });
    const removeBy = async (runtimeHandler: string) => {
      const removing = context();
      const request = RemoveImageRequest.fromPartial({ image: { image: name, runtimeHandler } });
      await removeImage(stack)(request, removing);
      return removing.changed.map((report) => report.id).sort();
    };
    await pullFar();
    assert.deepEqual(await removeBy('far'), [farId]);
    await pullFar();
    assert.deepEqual(await removeBy(''), [farId, id].sort());
    await pullFar();
    assert.deepEqual(await removeBy('runc'), []);
    assert.deepEqual(await removeBy(''), [farId], 'also where there is none for this machine');
  });

  it('keeps the layers of a volume until its lease has ended, through its removal and a restart', async () => {
    publishImage(registry, {
      path: 'data',
      tag: 'v1',
      layers: [buildTar([{ name: 'model', data: 'weights' }])],
    });
    const data = `${registry.host}/data:v1`;
    const { imageId } = await stack.pull({
      image: data,
      auth: undefined,
      platform: hostPlatform(),
      signal,
    });
    await assert.rejects(take('c1', name, [data, 'absent']), (error) =>
      isFailure(error, 'not_found'),
    );
    assert.deepEqual(stack.store.leases.all(), [], 'all of a lease or nothing');
    const { volumes } = await take('c1', name, [data]);
    assert.deepEqual(
      volumes.map((volume) => [volume.image, volume.imageId, volume.layerNames.length]),
      [[data, imageId, 1]],
    );
    await remove(data);
    assert.equal(layers(), 3);
    const reopened = await stack.reopen();
    await reopened.sweep();
    assert.equal(layers(), 3);
    assert.deepEqual((await take('c1', name, [data])).volumes, volumes);
    await endLease(stack)({ leaseId: 'c1' }, context());
    for (let tries = 0; tries < 100 && layers() > 2; tries += 1) await systemClock.sleep(20);
    assert.equal(layers(), 2);
  });

  it('says what a removal freed in image-fs-info, and the configuration in describe', async () => {
    await stack.store.layers.measure(signal);
    const writableLayers = createWritableLayers(stack.service);
    const measuring = { firstRound: async () => {}, forEver: async () => {} };
    const info = imageFsInfo({ ...stack, writableLayers, measuring });
    const used = async () => (await info({}, context())).info?.imageFilesystems[0];
    assert.ok(((await used())?.usedBytes?.value ?? 0n) > 0n);
    assert.equal((await used())?.fsId?.mountpoint, stack.store.paths.root);
    const verbose = JSON.parse((await describeImage(stack)({ id }, context())).info['info'] ?? '');
    assert.match(verbose.chainID, /^sha256:[0-9a-f]{64}$/);
    assert.deepEqual(verbose.imageSpec.config.Cmd, ['/bin/true']);
    await remove(id);
    assert.equal((await used())?.usedBytes?.value, 0n);
    assert.deepEqual(readdirSync(stack.store.paths.records), []);
    assert.deepEqual(readdirSync(stack.store.paths.content), []);
  });
});
