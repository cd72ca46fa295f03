// How a kubelet gets the image of a container by its pull policy and its pod's secrets.

import assert from 'node:assert/strict';
import {
  ImageStatusRequest,
  type PodSandboxConfig,
  PullImageRequest,
} from '@cribus/contracts/gen/cri/v1/api.ts';
import type { KubeletClient } from './client-checks.ts';
import type { ContainerManifest, PodManifest } from './manifest.ts';

/** Answers the image's id. Each secret is tried until one serves, and none if there are none. */
export async function ensureImage(
  client: KubeletClient,
  {
    pod,
    container,
    sandboxConfig,
  }: {
    readonly pod: PodManifest;
    readonly container: ContainerManifest;
    readonly sandboxConfig: PodSandboxConfig;
  },
): Promise<string> {
  const image = { image: container.image, annotations: sandboxConfig.annotations };
  const find = async () => {
    const request = ImageStatusRequest.fromPartial({ image });
    return (await client.ask('imageStatus', request)).image?.id;
  };
  const policy = container.imagePullPolicy ?? 'IfNotPresent';
  const present = await find();
  if (present !== undefined && policy !== 'Always') return present;
  if (policy === 'Never') throw new Error('ErrImageNeverPull');
  const secrets = pod.imagePullSecrets.length === 0 ? [undefined] : pod.imagePullSecrets;
  let failure: unknown;
  for (const auth of secrets) {
    try {
      const request = PullImageRequest.fromPartial({ image, sandboxConfig, auth });
      const { imageRef } = await client.ask('pullImage', request);
      // What EnsureSecretPulledImages records; another id lets others use a private image.
      assert.equal(imageRef, await find(), 'image_ref is not the id of the image');
      return imageRef;
    } catch (error) {
      failure = error;
    }
  }
  throw failure;
}
