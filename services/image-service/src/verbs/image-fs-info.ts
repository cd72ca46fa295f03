// ImageFsInfo: what the layers of images and of containers take, measured in the background; the
// kubelet resolves the mount points itself to learn of the filesystems. A kubelet keeps what the first
// answer says of these, and older ones read used_bytes without looking whether it is there: so an answer
// that comes before everything was measured waits a little, and then has what was counted so far.

import type { VerbHandler } from '@cribus/chassis/owner.ts';
import type { Service } from '@cribus/chassis/service.ts';
import { ImageFsInfoResponse } from '@cribus/contracts/gen/node/v1/verbs.ts';
import type { ImageStore } from '../image-store.ts';
import type { Measuring } from '../measuring.ts';
import type { WritableLayers } from '../writable-layers.ts';

export function imageFsInfo(deps: {
  readonly service: Service;
  readonly store: ImageStore;
  readonly writableLayers: WritableLayers;
  readonly measuring: Measuring;
}): VerbHandler<'image-fs-info'> {
  const { service, store, writableLayers, measuring } = deps;
  return async (_request, context) => {
    await measuring.firstRound(context.signal);
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
