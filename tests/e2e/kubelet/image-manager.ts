// The kubelet's image_gc_manager.go: which images nobody uses, as far as a runtime's answers tell, and
// what it does with those.

import {
  ImageFsInfoRequest,
  ListContainersRequest,
  ListImagesRequest,
  ListPodSandboxRequest,
  RemoveImageRequest,
} from '@cribus/contracts/gen/cri/v1/api.ts';
import { type KubeletClient, unlessGone } from './client-checks.ts';

/** Ids of images that are removed when the disk is full. */
export async function unusedImages(client: KubeletClient): Promise<readonly string[]> {
  const { images } = await client.ask('listImages', ListImagesRequest.fromPartial({}));
  const filter = {};
  await client.ask('listPodSandbox', ListPodSandboxRequest.fromPartial({ filter }));
  const { containers } = await client.ask(
    'listContainers',
    ListContainersRequest.fromPartial({ filter }),
  );
  const used = new Set<string>();
  for (const { id: containerId, imageId } of containers) {
    used.add(imageId);
    const answer = await unlessGone(client.ask('containerStatus', { containerId, verbose: false }));
    for (const { image } of answer?.status?.mounts ?? []) used.add(image?.image ?? '');
  }
  return images.filter(({ id, pinned }) => !used.has(id) && !pinned).map(({ id }) => id);
}

/** One collection that wants everything. */
export async function collectImages(client: KubeletClient): Promise<void> {
  for (const image of await unusedImages(client)) {
    await client.ask('removeImage', RemoveImageRequest.fromPartial({ image: { image } }));
  }
}

/** Of the filesystem that a kubelet looks at. */
export async function usedBytes(client: KubeletClient): Promise<bigint> {
  const { imageFilesystems } = await client.ask('imageFsInfo', ImageFsInfoRequest.fromPartial({}));
  return imageFilesystems[0]?.usedBytes?.value ?? 0n;
}
