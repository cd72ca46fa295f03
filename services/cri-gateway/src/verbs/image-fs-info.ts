// ImageFsInfo: the filesystems that hold images and writable layers, as the image-service sees them.

import { Failure } from '@cribus/contracts/failure.ts';
import type { ImageFsInfoRequest, ImageFsInfoResponse } from '@cribus/contracts/gen/cri/v1/api.ts';
import { IMAGE_SERVICE } from '@cribus/contracts/subjects.ts';
import type { Verb } from '../gateway.ts';

export function imageFsInfo(): Verb<ImageFsInfoRequest, ImageFsInfoResponse> {
  return async (_request, call) => {
    const { info } = await call.ask('image-fs-info', {}, { owner: IMAGE_SERVICE });
    if (info === undefined) throw new Failure('bug', `${IMAGE_SERVICE} answered without usage`);
    return info;
  };
}
