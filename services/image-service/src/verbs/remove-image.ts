// RemoveImage: by any of its names or its id an image loses all of them at once (api.proto: "removes
// the image"); its layers go when nothing uses them, in the background. An absent image is success. A name
// that images of several platforms share means all of them, or the one of the handler that comes with it.

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
    const handler = request.image?.runtimeHandler ?? '';
    const meant = () => {
      if (handler === '') return store.findAll(name);
      const image = store.find(name, platformOfHandler(service.config.runtimes, handler));
      return image === undefined ? [] : [image];
    };
    await store.exclusively(async () => {
      for (const { id } of meant()) await store.removeImage(id, context.changed);
    });
    await store.sweep();
    return Nothing.fromPartial({});
  };
}
