// ImageFsInfo: what the layers of images and of containers take, measured in the background; the
// kubelet resolves the mount points itself to learn of the filesystems.

import type { VerbHandler } from '@cribus/chassis/owner.ts';
import type { Service } from '@cribus/chassis/service.ts';
import { ImageFsInfoResponse } from '@cribus/contracts/gen/node/v1/verbs.ts';
import type { ImageStore } from '../image-store.ts';
import type { WritableLayers } from '../writable-layers.ts';

export function imageFsInfo(deps: {
  readonly service: Service;
  readonly store: ImageStore;
  readonly writableLayers: WritableLayers;
}): VerbHandler<'image-fs-info'> {
  const { service, store, writableLayers } = deps;
  return async () => {
    const { bytes, inodes } = store.layers.usage();
    const ofImages = {
      timestamp: service.clock.nowNs(),
      fsId: { mountpoint: store.paths.root },
      usedBytes: { value: bytes },
      inodesUsed: { value: inodes },
    };
    const written = writableLayers.usage();
    const ofContainers = {
      timestamp: written.measuredAtNs,
      fsId: { mountpoint: written.mountpoint },
      usedBytes: { value: written.bytes },
      inodesUsed: { value: written.inodes },
    };
    const info = { imageFilesystems: [ofImages], containerFilesystems: [ofContainers] };
    return ImageFsInfoResponse.fromPartial({ info });
  };
}
