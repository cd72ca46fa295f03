// TakeLease: the layers of a container's image, and of the images that it mounts as volumes, kept until
// the lease ends. The lease is on disk before its layers are told, so no crash lets them be collected
// under a container.

import type { VerbHandler } from '@cribus/chassis/owner.ts';
import type { Service } from '@cribus/chassis/service.ts';
import { Failure } from '@cribus/contracts/failure.ts';
import { ImageRecord, LeasedVolume, LeaseRecord } from '@cribus/contracts/gen/node/v1/records.ts';
import { TakeLeaseResponse } from '@cribus/contracts/gen/node/v1/verbs.ts';
import { type Platform, platformOfHandler } from '@cribus/contracts/image-platform.ts';
import { type ImageStore, requireImage } from '../image-store.ts';

const LEASE_FORMAT = 1;
/** A container has a handful of volumes; what one lease may hold must end somewhere. */
const VOLUMES_MAX = 256;

/**
 * Idempotent by id. Raises not_found for an absent image, invalid_argument for a bad id or name, and
 * limit for more volumes than 256.
 */
export function takeLease(deps: {
  readonly service: Service;
  readonly store: ImageStore;
}): VerbHandler<'take-lease'> {
  const { service, store } = deps;
  return async ({ leaseId, handler, image: name, volumeImages }) => {
    if (!/^[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}$/.test(leaseId)) {
      throw new Failure(
        'invalid_argument',
        `lease ${JSON.stringify(leaseId.slice(0, 200))}: a bad id`,
      );
    }
    if (name === '') throw new Failure('invalid_argument', `lease ${leaseId}: no image is named`);
    if (volumeImages.length > VOLUMES_MAX) {
      throw new Failure('limit', `lease ${leaseId}: ${volumeImages.length} volumes of images`);
    }
    return store.exclusively(async () => {
      const before = store.leases.get(leaseId);
      if (before !== undefined) return answer(store, await leasedImage(store, before), before);
      const wanted = platformOfHandler(service.config.runtimes, handler);
      const image = requireImage(store, name, wanted);
      const lease = LeaseRecord.fromPartial({
        format: LEASE_FORMAT,
        id: leaseId,
        imageId: image.id,
        handler,
        layerNames: topmostFirst(image),
        takenAtNs: service.clock.nowNs(),
        volumes: volumeImages.map((volume) => leaseVolume(store, volume, wanted)),
      });
      await store.leases.put(lease, { durable: true });
      return answer(store, image, lease);
    });
  };
}

/** The kubelet knows this word as a reason (cri-api, ErrImageVolumeMountFailed). */
function leaseVolume(store: ImageStore, name: string, wanted: Platform): LeasedVolume {
  const image = store.find(name, wanted);
  if (image === undefined) {
    throw new Failure(
      'not_found',
      `ImageVolumeMountFailed: image ${JSON.stringify(name)} is not here`,
    );
  }
  return LeasedVolume.fromPartial({
    image: name,
    imageId: image.id,
    layerNames: topmostFirst(image),
  });
}

function topmostFirst(image: ImageRecord): string[] {
  return distinct(image.layers.map((layer) => layer.name).reverse());
}

/**
 * Each layer where it is topmost: overlayfs refuses a directory that it has already (ELOOP), and
 * whatever one shows or hides, it has shown or hidden before the same layer comes again below.
 */
function distinct(topmostFirstNames: readonly string[]): string[] {
  return [...new Set(topmostFirstNames)];
}

/** The image of a lease, also when its record was removed meanwhile: its configuration is kept. */
async function leasedImage(store: ImageStore, lease: LeaseRecord): Promise<ImageRecord> {
  const image = store.images.get(lease.imageId);
  if (image !== undefined) return image;
  const configJson = await store.readBlob(lease.imageId);
  if (configJson === undefined) {
    throw new Failure('not_found', `lease ${lease.id}: image ${lease.imageId} is gone`);
  }
  const layers = lease.layerNames.map((name) => ({ name })).reverse();
  return ImageRecord.fromPartial({ id: lease.imageId, configJson, layers });
}

function answer(store: ImageStore, image: ImageRecord, lease: LeaseRecord): TakeLeaseResponse {
  return TakeLeaseResponse.fromPartial({
    image,
    layersDir: store.paths.layers,
    layerNames: topmostFirst(image),
    // One that was taken by an older version may name a layer twice.
    volumes: lease.volumes.map((volume) => ({
      ...volume,
      layerNames: distinct(volume.layerNames),
    })),
  });
}
