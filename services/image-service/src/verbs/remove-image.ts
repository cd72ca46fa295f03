// RemoveImage: by any of its names or its id an image loses all of them at once (api.proto: "removes
// the image"); its layers go when nothing uses them, in the background. An absent image is success.

import type { VerbHandler } from '@cribus/chassis/owner.ts';
import type { Service } from '@cribus/chassis/service.ts';
import { Failure } from '@cribus/contracts/failure.ts';
import { Nothing } from '@cribus/contracts/gen/node/v1/verbs.ts';
import { platformOfHandler } from '@cribus/contracts/image-platform.ts';
import type { ImageStore } from '../image-store.ts';

/** Raises invalid_argument. */
export function removeImage(deps: {
  readonly service: Service;
  readonly store: ImageStore;
}): VerbHandler<'remove-image'> {
  const { service, store } = deps;
  return async (request, context) => {
    const name = request.image?.image ?? '';
    if (name === '') throw new Failure('invalid_argument', 'remove: the request names no image');
    const wanted = platformOfHandler(service.config.runtimes, request.image?.runtimeHandler ?? '');
    await store.exclusively(async () => {
      const image = store.find(name, wanted);
      if (image !== undefined) await store.removeImage(image.id, context.changed);
    });
    await store.sweep();
    return Nothing.fromPartial({});
  };
}
