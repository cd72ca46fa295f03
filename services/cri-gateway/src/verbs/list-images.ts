// ListImages: all, or the one that the filter names.

import type { ListImagesRequest } from '@cribus/contracts/gen/cri/v1/api.ts';
import type { Gateway, Verb } from '../gateway.ts';
import { joinFragments } from '../view/fragments.ts';

export function listImages(gateway: Gateway): Verb<ListImagesRequest, Buffer> {
  return async ({ filter }) => {
    gateway.feed.requirePrimed();
    const listed = gateway.view.images();
    const reference = filter?.image?.image ?? '';
    if (reference === '') return joinFragments(listed.map((item) => item.fragment));
    const wanted = gateway.view.findImage(reference);
    const matching = listed.filter((item) => item.record === wanted);
    return joinFragments(matching.map((item) => item.fragment));
  };
}
