// RemoveImage: every name of the image goes with the one given; an absent image is removed already.

import { Failure } from '@cribus/contracts/failure.ts';
import type { RemoveImageRequest } from '@cribus/contracts/gen/cri/v1/api.ts';
import { RemoveImageResponse } from '@cribus/contracts/gen/cri/v1/api.ts';
import { IMAGE_SERVICE } from '@cribus/contracts/subjects.ts';
import type { Verb } from '../gateway.ts';
import { requireText } from './lookup.ts';

export function removeImage(): Verb<RemoveImageRequest, RemoveImageResponse> {
  return async ({ image }, call) => {
    if (image === undefined) throw new Failure('invalid_argument', 'image is missing');
    requireText(image.image, 'image.image');
    await call.ask('remove-image', { image }, { owner: IMAGE_SERVICE });
    return RemoveImageResponse.fromPartial({});
  };
}
