// StreamImages: what ListImages answers, in messages of bounded size (KEP-5825).

import type { StreamImagesRequest } from '@cribus/contracts/gen/cri/v1/api.ts';
import type { Gateway, StreamVerb } from '../gateway.ts';
import { inMessages } from '../view/chunks.ts';
import { matchingImages } from './list-images.ts';

export function streamImages(gateway: Gateway): StreamVerb<StreamImagesRequest, Buffer> {
  return ({ filter }) => inMessages(() => matchingImages(gateway, filter));
}
