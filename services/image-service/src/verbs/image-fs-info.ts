// ImageFsInfo: what the layers take, measured in the background; the kubelet resolves the mount
// point itself to learn of the filesystem.

import type { VerbHandler } from '@cribus/chassis/owner.ts';
import type { Service } from '@cribus/chassis/service.ts';
import { ImageFsInfoResponse } from '@cribus/contracts/gen/node/v1/verbs.ts';
import type { ImageStore } from '../image-store.ts';

export function imageFsInfo(deps: {
  readonly service: Service;
  readonly store: ImageStore;
}): VerbHandler<'image-fs-info'> {
  const { service, store } = deps;
  return async () => {
    const { bytes, inodes } = store.layers.usage();
    const filesystem = {
      timestamp: service.clock.nowNs(),
      fsId: { mountpoint: store.paths.root },
      usedBytes: { value: bytes },
      inodesUsed: { value: inodes },
    };
    // The same for containers: a different mount point would mean a split disk to the kubelet.
    const info = { imageFilesystems: [filesystem], containerFilesystems: [filesystem] };
    return ImageFsInfoResponse.fromPartial({ info });
  };
}
