// PullImage: the answer is the image's id, which all other calls show too.

import type { VerbHandler } from '@cribus/chassis/owner.ts';
import type { Service } from '@cribus/chassis/service.ts';
import { Failure } from '@cribus/contracts/failure.ts';
import { PullImageResponse } from '@cribus/contracts/gen/node/v1/verbs.ts';
import { platformOfHandler } from '@cribus/contracts/image-platform.ts';
import type { Puller } from '../pull.ts';

/** Raises invalid_argument, not_found, unauthenticated, denied, data_loss, limit, kubelet_reason. */
export function pullImage(deps: {
  readonly service: Service;
  readonly pull: Puller;
}): VerbHandler<'pull-image'> {
  return async (request, context) => {
    const image = request.image?.image ?? '';
    if (image === '') throw new Failure('invalid_argument', 'pull: the request names no image');
    const handler = request.image?.runtimeHandler ?? '';
    const platform = platformOfHandler(deps.service.config.runtimes, handler);
    const { auth } = request;
    const result = await deps.pull({ image, platform, auth, signal: context.signal });
    context.changed.push(...result.changed);
    return PullImageResponse.fromPartial({ imageId: result.imageId });
  };
}
