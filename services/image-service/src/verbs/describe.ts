// The verbose half of ImageStatus, with containerd's key and names.

import { createHash } from 'node:crypto';
import type { VerbHandler } from '@cribus/chassis/owner.ts';
import { DescribeResponse } from '@cribus/contracts/gen/node/v1/verbs.ts';
import { type ImageStore, requireImage } from '../image-store.ts';

/** Raises not_found, invalid_argument. */
export function describe(deps: { readonly store: ImageStore }): VerbHandler<'describe'> {
  return async ({ id }) => {
    const image = requireImage(deps.store, id);
    const info = JSON.stringify({
      // A layer without a digest came from no registry (implied-directories.ts).
      chainID: chainId(image.layers.filter(({ digest }) => digest !== '').map((one) => one.diffId)),
      imageSpec: JSON.parse(Buffer.from(image.configJson).toString('utf8')) as unknown,
    });
    return DescribeResponse.fromPartial({ info: { info } });
  };
}

/** Of all layers together (image-spec v1.1, config.md, "Layer ChainID"). */
function chainId(diffIds: readonly string[]): string {
  return diffIds.reduce(
    (chain, diffId) =>
      chain === ''
        ? diffId
        : `sha256:${createHash('sha256').update(`${chain} ${diffId}`).digest('hex')}`,
    '',
  );
}
