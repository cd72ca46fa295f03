// PullImage: answers the image's id, which is the same in every other answer that names it.

import { Failure } from '@cribus/contracts/failure.ts';
import type { PullImageRequest } from '@cribus/contracts/gen/cri/v1/api.ts';
import { PullImageResponse } from '@cribus/contracts/gen/cri/v1/api.ts';
import { PullImageRequest as OwnerRequest } from '@cribus/contracts/gen/node/v1/verbs.ts';
import { IMAGE_SERVICE } from '@cribus/contracts/subjects.ts';
import type { Gateway, Verb } from '../gateway.ts';
import { requireHandler, requireText } from './lookup.ts';

export function pullImage(gateway: Gateway): Verb<PullImageRequest, PullImageResponse> {
  return async ({ image, auth, sandboxConfig }, call) => {
    if (image === undefined) throw new Failure('invalid_argument', 'image is missing');
    requireText(image.image, 'image.image');
    if (image.runtimeHandler !== '') requireHandler(gateway, image.runtimeHandler);
    const { imageId } = await call.ask(
      'pull-image',
      OwnerRequest.fromPartial({
        image,
        ...(auth === undefined ? {} : { auth }),
        ...(sandboxConfig === undefined ? {} : { sandboxConfig }),
      }),
      { owner: IMAGE_SERVICE },
    );
    return PullImageResponse.fromPartial({ imageRef: imageId });
  };
}
