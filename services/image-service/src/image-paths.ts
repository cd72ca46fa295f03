// Where images, layers and leases are, below one directory.

import { join } from 'node:path';

export type ImagePaths = ReturnType<typeof imagePaths>;

/** Everything of this service below `images` of the stack's paths. */
export function imagePaths(images: string) {
  const hexOf = (id: string) => id.replace(/^sha256:/, '');
  return {
    root: images,
    lock: join(images, 'lock'),
    records: join(images, 'records'),
    recordOf: (imageId: string) => join(images, 'records', hexOf(imageId), 'record.pb'),
    leases: join(images, 'leases'),
    leaseOf: (leaseId: string) => join(images, 'leases', leaseId, 'record.pb'),
    /** Manifests and configurations by digest. */
    content: join(images, 'content', 'sha256'),
    blobOf: (digest: string) => join(images, 'content', 'sha256', hexOf(digest)),
    layers: join(images, 'layers'),
    /** By the layer's name: the directories that it implies, as JSON; where it implies any. */
    implied: join(images, 'implied'),
    impliedOf: (layerName: string) => join(images, 'implied', layerName),
    /** Layers being unpacked; on the same filesystem, so that a commit is one rename. */
    ingest: join(images, 'ingest'),
    /** Layers being deleted. */
    trash: join(images, 'trash'),
  };
}
