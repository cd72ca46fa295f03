// EndLease: the container is gone; what only it used may go too. An absent lease is success.

import type { VerbHandler } from '@cribus/chassis/owner.ts';
import type { Service } from '@cribus/chassis/service.ts';
import { Nothing } from '@cribus/contracts/gen/node/v1/verbs.ts';
import type { ImageStore } from '../image-store.ts';

export function endLease(deps: {
  readonly service: Service;
  readonly store: ImageStore;
}): VerbHandler<'end-lease'> {
  const { service, store } = deps;
  return async ({ leaseId }) => {
    const lease = store.leases.get(leaseId);
    if (lease === undefined) return Nothing.fromPartial({});
    await store.exclusively(() => store.removeLease(leaseId));
    // Only a lease that outlived its image frees anything, and its container need not wait for that.
    const images = [lease.imageId, ...lease.volumes.map((volume) => volume.imageId)];
    if (images.some((id) => store.images.get(id) === undefined)) {
      service.background('collect after a lease', store.sweep());
    }
    return Nothing.fromPartial({});
  };
}
