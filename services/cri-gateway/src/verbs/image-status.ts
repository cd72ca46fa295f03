// ImageStatus: an image by any of its names; none is an answer without an image, not an error.

import { Failure } from '@cribus/contracts/failure.ts';
import type { ImageStatusRequest } from '@cribus/contracts/gen/cri/v1/api.ts';
import { ImageStatusResponse } from '@cribus/contracts/gen/cri/v1/api.ts';
import type { ImageRecord } from '@cribus/contracts/gen/node/v1/records.ts';
import { platformOfHandler } from '@cribus/contracts/image-platform.ts';
import type { Gateway, Verb } from '../gateway.ts';
import { imageConfig, toImage } from '../view/cri-image.ts';
import { requireText } from './lookup.ts';

export function imageStatus(gateway: Gateway): Verb<ImageStatusRequest, ImageStatusResponse> {
  return async (request) => {
    if (request.image === undefined) throw new Failure('invalid_argument', 'image is missing');
    requireText(request.image.image, 'image.image');
    const wanted = platformOfHandler(gateway.config.runtimes, request.image.runtimeHandler);
    const record = gateway.view.findImage(request.image.image, wanted);
    // Absent is an answer only once the image-service was heard; present always is.
    gateway.feed.requirePrimed();
    if (record === undefined) return ImageStatusResponse.fromPartial({});
    return ImageStatusResponse.fromPartial({
      image: toImage(record),
      info: request.verbose ? { info: verboseInfo(record) } : {},
    });
  };
}

function verboseInfo(record: ImageRecord): string {
  return JSON.stringify({
    imageSpec: imageConfig(record),
    manifestDigest: record.manifestDigest,
    platform: record.platform,
    pulledAt: new Date(Number(record.pulledAtNs / 1_000_000n)).toISOString(),
    // One without a digest came from no registry: image-service made it to hold directories.
    layers: record.layers
      .filter(({ digest }) => digest !== '')
      .map((layer) => ({
        digest: layer.digest,
        diffID: layer.diffId,
        mediaType: layer.mediaType,
        size: Number(layer.sizeBytes),
      })),
  });
}
