// ListImages: all, or the one that the filter names.

import type { ImageFilter, ListImagesRequest } from '@cribus/contracts/gen/cri/v1/api.ts';
import { platformOfHandler } from '@cribus/contracts/image-platform.ts';
import type { Gateway, Verb } from '../gateway.ts';
import { joinFragments } from '../view/fragments.ts';

export function listImages(gateway: Gateway): Verb<ListImagesRequest, Buffer> {
  return async ({ filter }) => joinFragments(matchingImages(gateway, filter));
}

/** The encoded items that the filter lets through. Raises unavailable for a view that isn't whole. */
export function matchingImages(gateway: Gateway, filter: ImageFilter | undefined): Buffer[] {
  gateway.feed.requirePrimed();
  const listed = gateway.view.images();
  const reference = filter?.image?.image ?? '';
  if (reference === '') return listed.map((item) => item.fragment);
  const handler = filter?.image?.runtimeHandler ?? '';
  const wanted = platformOfHandler(gateway.config.runtimes, handler);
  const found = gateway.view.findImage(reference, wanted);
  return listed.filter((item) => item.record === found).map((item) => item.fragment);
}
