// Pulling an image: resolve, choose the platform, fetch configuration and layers, commit the record.
// Every layer is verified twice, as it was sent (digest) and as it was meant (diffID).

import { createHash } from 'node:crypto';
import { join } from 'node:path';
import type { Semaphore } from '@cribus/chassis/queue.ts';
import { createSemaphore } from '@cribus/chassis/queue.ts';
import type { Service } from '@cribus/chassis/service.ts';
import { Failure, isFailure } from '@cribus/contracts/failure.ts';
import type { AuthConfig } from '@cribus/contracts/gen/cri/v1/api.ts';
import { ImageRecord, LayerUse, type ObjectReport } from '@cribus/contracts/gen/node/v1/records.ts';
import { type Platform, platformText, rankOfImage } from '@cribus/contracts/image-platform.ts';
import {
  canonicalReference,
  type ImageReference,
  parseImageReference,
} from '@cribus/contracts/image-reference.ts';
import { joinSignals } from '@cribus/host/joined-signals.ts';
import type { ImageStore } from './image-store.ts';
import {
  identityOf,
  inheritedDirectories,
  writeDirectories,
} from './layers/implied-directories.ts';
import { startUnpacking } from './layers/unpack.ts';
import { type PullMetrics, type PullProgress, watchProgress } from './pull-progress.ts';
import { credentialsOf } from './registry/credentials.ts';
import { hostsOf } from './registry/hosts-file.ts';
import {
  choosePlatform,
  type Descriptor,
  type Manifest,
  parseConfigBlob,
  parseManifest,
} from './registry/manifest.ts';
import { createImageSource, type FetchedManifest, type ImageSource } from './registry/source.ts';
import { createVerifier, type Verifier } from './verifier.ts';

export interface PullRequest {
  readonly image: string;
  readonly auth: AuthConfig | undefined;
  readonly platform: Platform;
  /** The service's end; a pull has no total time. */
  readonly signal: AbortSignal;
}

export interface PullResult {
  readonly imageId: string;
  readonly changed: readonly ObjectReport[];
}

/** Pulls; calls with the same reference, platform and credentials share one pull. */
export type Puller = (request: PullRequest) => Promise<PullResult>;

interface Deps {
  readonly service: Service;
  readonly store: ImageStore;
  readonly metrics: PullMetrics;
  readonly downloads: Semaphore;
  readonly unpacks: Semaphore;
  readonly verifier: Verifier;
}

interface Pull {
  readonly reference: ImageReference;
  readonly platform: Platform;
  readonly source: ImageSource;
  readonly signal: AbortSignal;
  readonly progress: PullProgress;
  /** Names of layers and digests of blobs, kept until the image is recorded. */
  readonly heldLayers: string[];
  readonly heldBlobs: string[];
}

const INDEX_DEPTH_MAX = 3;

/** Makes the puller; it keeps the maxima of parallel work over all pulls. */
export function createPuller(options: {
  readonly service: Service;
  readonly store: ImageStore;
  readonly metrics: PullMetrics;
}): Puller {
  const { images } = options.service.config;
  const deps: Deps = {
    ...options,
    downloads: createSemaphore(images.max_parallel_downloads),
    unpacks: createSemaphore(images.max_parallel_unpacks),
    verifier: createVerifier(options.service),
  };
  const running = new Map<string, Promise<PullResult>>();
  return (request) => {
    const reference = parseImageReference(request.image);
    const { auth, platform } = request;
    const key = createHash('sha256')
      .update(JSON.stringify([canonicalReference(reference), platform, auth ?? null]))
      .digest('hex');
    const joined = running.get(key);
    if (joined !== undefined) return joined;
    const { signal } = request;
    const pull = pullOnce(deps, { reference, platform, auth, signal }).finally(() =>
      running.delete(key),
    );
    running.set(key, pull);
    return pull;
  };
}

async function pullOnce(
  deps: Deps,
  request: {
    readonly reference: ImageReference;
    readonly platform: Platform;
    readonly auth: AuthConfig | undefined;
    readonly signal: AbortSignal;
  },
): Promise<PullResult> {
  const { service, store } = deps;
  const { reference } = request;
  const { certs_dir, progress_timeout_s } = service.config.images;
  const source = createImageSource({
    reference,
    // What is meant for the registry is not shown to its mirrors.
    credentialsFor: ({ base, own }) =>
      credentialsOf(request.auth, own ? [reference.registry, base.host] : [base.host]),
    hosts: await hostsOf(certs_dir, reference.registry),
    idleTimeoutMs: progress_timeout_s * 1000,
    clock: service.clock,
    metrics: service.metrics,
  });
  const failed = new AbortController();
  const { signal, release } = joinSignals([request.signal, failed.signal]);
  const progress = watchProgress(service, deps.metrics, canonicalReference(reference));
  const pull: Pull = {
    reference,
    platform: request.platform,
    source,
    signal,
    progress,
    heldLayers: [],
    heldBlobs: [],
  };
  let leftovers = false;
  try {
    const { image, digest } = await fetchImage(deps, pull);
    // The record is on the disk as soon as it is written, and promises its layers.
    await store.layers.persist(image.layers.map(({ name }) => name));
    const changed: ObjectReport[] = [];
    const record = await store.exclusively(() =>
      store.addImage(image, { reference, digest, changed }),
    );
    progress.succeeded(record.id);
    return { imageId: record.id, changed };
  } catch (error) {
    progress.failed(error);
    // What was verified stays, for the next sweep, only where a retry may take it up.
    leftovers = isFailure(error) && !isFailure(error, 'kubelet_reason', 'cancelled', 'unavailable');
    throw error;
  } finally {
    failed.abort();
    release();
    source.close();
    store.layers.release(pull.heldLayers);
    store.releaseBlobs(pull.heldBlobs);
    if (leftovers) await store.sweep();
  }
}

async function fetchImage(
  deps: Deps,
  pull: Pull,
): Promise<{ readonly image: ImageRecord; readonly digest: string }> {
  const { store, service } = deps;
  const { manifest, digest, manifestDigest, variant } = await resolve(deps, pull);
  const known = await store.readBlob(manifest.config.digest);
  const configJson = known ?? (await pull.source.fetchConfig(manifest.config, pull.signal));
  pull.heldBlobs.push(manifest.config.digest);
  await store.writeBlob(manifest.config.digest, configJson);
  const config = parseConfigBlob(configJson);
  if (config.diffIds.length !== manifest.layers.length) {
    throw new Failure(
      'data_loss',
      `pull ${canonicalReference(pull.reference)}: ${manifest.layers.length} layers, but ${config.diffIds.length} diff_ids`,
    );
  }
  const platform = platformText({
    ...config.platform,
    variant: config.platform.variant || variant,
  });
  checkPlatform(platform, pull);
  const layers = await fetchLayers(deps, pull, { manifest, diffIds: config.diffIds });
  const layerBytes = manifest.layers.reduce((sum, layer) => sum + layer.sizeBytes, 0);
  const image = ImageRecord.fromPartial({
    id: manifest.config.digest,
    sizeBytes: BigInt(configJson.length + layerBytes),
    configJson,
    layers,
    manifestDigest,
    pulledAtNs: service.clock.nowNs(),
    platform,
    annotations: { ...manifest.annotations },
    checkpointAnnotations: { ...manifest.checkpointAnnotations },
  });
  return { image, digest };
}

/** A configuration that names none is a builder's carelessness; one for another machine can't run. */
function checkPlatform(found: string, { platform, reference }: Pull): void {
  if (found === '/' || rankOfImage(found, platform) >= 0) return;
  throw new Failure(
    'not_found',
    `pull ${canonicalReference(reference)}: the image is for ${found}, wanted is ${platformText(platform)}`,
  );
}

/** From the reference to the manifest of this platform. */
async function resolve(
  deps: Deps,
  pull: Pull,
): Promise<{
  readonly manifest: Extract<Manifest, { kind: 'image' }>;
  readonly digest: string;
  readonly manifestDigest: string;
  /** As the list says; configurations tend to leave it out. */
  readonly variant: string;
}> {
  const { reference } = pull;
  let variant = '';
  let which = reference.digest ?? reference.tag ?? 'latest';
  let digest: string | undefined;
  for (let depth = 0; depth < INDEX_DEPTH_MAX; depth += 1) {
    const fetched = await fetchManifest(deps, pull, { which, depth });
    const manifest = parseManifest(fetched.body, fetched.contentType);
    if (depth === 0) await verify(deps, pull, { fetched, mediaType: manifest.mediaType });
    pull.heldBlobs.push(fetched.digest);
    await deps.store.writeBlob(fetched.digest, fetched.body);
    digest ??= fetched.digest;
    if (manifest.kind === 'image') {
      return { manifest, digest, manifestDigest: fetched.digest, variant };
    }
    const chosen = choosePlatform(manifest.entries, pull.platform);
    which = chosen.digest;
    variant = chosen.platform?.variant ?? '';
  }
  throw new Failure(
    'unsupported',
    `pull ${canonicalReference(reference)}: lists within lists of manifests`,
  );
}

/**
 * What is here is not sent again. But its host is asked which it is, whether the repository has it and
 * whether we may; and a repository that never gave it to us has to give it: its word may be false.
 */
async function fetchManifest(
  { store }: Deps,
  { source, signal, reference }: Pull,
  { which, depth }: { readonly which: string; readonly depth: number },
): Promise<FetchedManifest> {
  const known = depth > 0 ? await store.readBlob(which) : undefined;
  // What a list names is as good as the list.
  if (known !== undefined) return { body: known, digest: which, contentType: '' };
  const images = store.images.all();
  const isName = (name: string) =>
    images.some(
      ({ repoTags, repoDigests }) => repoTags.includes(name) || repoDigests.includes(name),
    );
  const stored = async (digest: string) =>
    isName(`${reference.repository}@${digest}`) ? await store.readBlob(digest) : undefined;
  // A first pull doesn't ask in vain.
  const again = depth === 0 && isName(canonicalReference(reference));
  return await source.fetchManifest(which, { signal, ...(again ? { stored } : {}) });
}

/** Of what the reference means, before anything of it is kept. */
async function verify(
  { verifier }: Deps,
  pull: Pull,
  what: {
    readonly fetched: { readonly digest: string; readonly body: Buffer };
    readonly mediaType: string;
  },
): Promise<void> {
  const { digest, body } = what.fetched;
  const name = canonicalReference(pull.reference);
  const candidate = { name, digest, mediaType: what.mediaType, sizeBytes: body.length };
  await verifier(candidate, pull.signal);
}

async function fetchLayers(
  deps: Deps,
  pull: Pull,
  image: {
    readonly manifest: Extract<Manifest, { kind: 'image' }>;
    readonly diffIds: readonly string[];
  },
): Promise<LayerUse[]> {
  const abort = new AbortController();
  const { signal, release } = joinSignals([pull.signal, abort.signal]);
  const work = image.manifest.layers.map(async (blob, index) => {
    const diffId = image.diffIds[index] ?? '';
    const name = await deps.store.layers.ensure(diffId, (directory) =>
      deps.downloads.run(
        () => fetchLayer(deps, { ...pull, signal }, { blob, diffId, directory }),
        signal,
      ),
    );
    pull.heldLayers.push(name);
    const { digest, mediaType, sizeBytes } = blob;
    return LayerUse.fromPartial({ diffId, digest, mediaType, sizeBytes: BigInt(sizeBytes), name });
  });
  try {
    return await withInherited(deps, pull, await Promise.all(work));
  } catch (error) {
    // The others stop, and have stopped when we answer: nothing may be written afterwards.
    abort.abort(error);
    await Promise.allSettled(work);
    throw error;
  } finally {
    release();
  }
}

/** The layers, and above each that needs it one with the directories that it only implies. */
async function withInherited(
  { store }: Deps,
  pull: Pull,
  layers: readonly LayerUse[],
): Promise<LayerUse[]> {
  const all: LayerUse[] = [];
  const pathOf = ({ name }: LayerUse) => join(store.paths.layers, name);
  for (const layer of layers) {
    const implied = await store.layers.impliedDirectories(layer.name);
    const lowerTopmostFirst = [...all].reverse().map(pathOf);
    all.push(layer);
    if (implied.length === 0) continue;
    const directories = await inheritedDirectories(pathOf(layer), { implied, lowerTopmostFirst });
    if (directories.length === 0) continue;
    const diffId = identityOf(directories);
    const name = await store.layers.ensure(diffId, async (directory) => {
      await writeDirectories(directory, directories);
      return [];
    });
    pull.heldLayers.push(name);
    all.push(LayerUse.fromPartial({ diffId, name }));
  }
  return all;
}

/** One layer from the first host that has it whole; the directories that it implies. */
async function fetchLayer(
  deps: Deps,
  pull: Pull,
  layer: { readonly blob: Descriptor; readonly diffId: string; readonly directory: string },
): Promise<readonly string[]> {
  const { blob, diffId, directory } = layer;
  pull.progress.expect(blob.sizeBytes);
  return pull.source.withEachHost('pull', async (client) => {
    const unpacking = await startUnpacking(directory, deps.unpacks, pull.signal);
    try {
      for await (const chunk of pull.source.readBlob(client, blob, pull.signal)) {
        pull.progress.received(chunk.length);
        await unpacking.write(chunk);
      }
      const result = await unpacking.finish();
      const where = `layer ${blob.digest} from ${client.host.base.host}`;
      if (result.digest !== blob.digest) {
        throw new Failure('data_loss', `${where} has the digest ${result.digest}`);
      }
      if (result.diffId !== diffId) {
        throw new Failure('data_loss', `${where} has the diffID ${result.diffId}, not ${diffId}`);
      }
      return result.impliedDirectories;
    } catch (error) {
      pull.signal.throwIfAborted();
      await unpacking.discard();
      throw error;
    } finally {
      await unpacking.close();
    }
  });
}
