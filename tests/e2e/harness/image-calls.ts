// The calls of CRI's image service as a caller makes them, and what an image store holds on disk.

import assert from 'node:assert/strict';
import { existsSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { GRPC_CODE } from '@cribus/contracts/failure.ts';
import {
  type AuthConfig,
  type FilesystemUsage,
  type Image,
  ImageFsInfoRequest,
  ImageStatusRequest,
  ListImagesRequest,
  PullImageRequest,
  RemoveImageRequest,
} from '@cribus/contracts/gen/cri/v1/api.ts';
import type { Cri } from './cri.ts';
import type { Stack } from './stack.ts';

/** Answers the image_ref of the reply. */
export async function pullImage(
  cri: Cri,
  image: string,
  options: { readonly auth?: Partial<AuthConfig>; readonly timeoutMs?: number } = {},
): Promise<string> {
  const { auth, timeoutMs } = options;
  const { imageRef } = await cri.call(
    'pullImage',
    PullImageRequest.fromPartial({ image: { image }, ...(auth === undefined ? {} : { auth }) }),
    timeoutMs === undefined ? {} : { timeoutMs },
  );
  return imageRef;
}

export async function imageStatus(cri: Cri, image: string): Promise<Image | undefined> {
  const answer = await cri.call(
    'imageStatus',
    ImageStatusRequest.fromPartial({ image: { image } }),
  );
  return answer.image;
}

export async function listImages(cri: Cri, filter?: string): Promise<Image[]> {
  const request = filter === undefined ? {} : { filter: { image: { image: filter } } };
  return (await cri.call('listImages', ListImagesRequest.fromPartial(request))).images;
}

export async function removeImage(cri: Cri, image: string): Promise<void> {
  await cri.call('removeImage', RemoveImageRequest.fromPartial({ image: { image } }));
}

export async function removeAllImages(cri: Cri): Promise<void> {
  for (const { id } of await listImages(cri)) await removeImage(cri, id);
}

/** The first entry, which the kubelet looks at. */
export async function imageFilesystem(cri: Cri): Promise<FilesystemUsage> {
  const answer = await cri.call('imageFsInfo', ImageFsInfoRequest.fromPartial({}));
  const [first] = answer.imageFilesystems;
  assert.ok(first !== undefined, 'no image filesystem');
  return first;
}

export interface StoredImages {
  readonly layers: readonly string[];
  readonly ingests: readonly string[];
  /** Manifests and configurations. */
  readonly blobs: readonly string[];
  readonly records: readonly string[];
  readonly listed: readonly string[];
}

/** What there is on disk and in the list. */
export async function storedImages(stack: Stack): Promise<StoredImages> {
  const images = imagesDirectory(stack);
  const names = (directory: string) => {
    const path = join(images, directory);
    return existsSync(path) ? readdirSync(path).sort() : [];
  };
  return {
    layers: names('layers'),
    ingests: names('ingest'),
    blobs: names('content/sha256'),
    records: names('records').filter((name) => /^[0-9a-f]{64}$/.test(name)),
    listed: (await listImages(stack.cri)).map(({ id }) => id).sort(),
  };
}

export function imagesDirectory(stack: Stack): string {
  return join(stack.root, 'state', 'images');
}

export interface Refusal {
  /** Name of a gRPC status. */
  readonly code: keyof typeof GRPC_CODE;
  readonly message: RegExp;
}

/**
 * Pulls what must fail: with the code and a message that matches, and nothing is left behind: no
 * ingest, no layer directory, no image record and none listed.
 */
export async function refusePull(
  stack: Stack,
  image: string,
  refusal: Refusal,
  auth?: Partial<AuthConfig>,
): Promise<string> {
  const before = await storedImages(stack);
  const details = await failureOf(
    pullImage(stack.cri, image, auth === undefined ? {} : { auth }),
    refusal,
  );
  const after = await storedImages(stack);
  // What was verified before its registry went away is kept for a while: the caller will try again.
  const kept = refusal.code === 'UNKNOWN' ? { layers: before.layers, blobs: before.blobs } : {};
  assert.deepEqual({ ...after, ...kept }, before, 'something was left behind');
  assert.deepEqual(before.ingests, []);
  return details;
}

/** The `details` of a call that must fail so. */
export async function failureOf(call: Promise<unknown>, refusal: Refusal): Promise<string> {
  try {
    await call;
  } catch (error) {
    assert.ok(error instanceof Error && 'code' in error && 'details' in error, String(error));
    const { code, details } = error as Error & { code: number; details: string };
    assert.equal(code, GRPC_CODE[refusal.code], `${code}: ${details}`);
    assert.match(details, refusal.message);
    return details;
  }
  assert.fail(`succeeded, but ${refusal.code} ${refusal.message} was due`);
}
