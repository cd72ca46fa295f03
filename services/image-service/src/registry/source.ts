// An image's source: the hosts of its registry in their order, with the next one tried when one
// fails, and every manifest and small blob verified.

import { createHash } from 'node:crypto';
import type { IncomingHttpHeaders } from 'node:http';
import type { Metrics } from '@cribus/chassis/metrics.ts';
import { Failure, type FailureKind, isFailure } from '@cribus/contracts/failure.ts';
import type { ImageReference } from '@cribus/contracts/image-reference.ts';
import { canonicalReference, isDigest } from '@cribus/contracts/image-reference.ts';
import type { Clock } from '@cribus/host/clock.ts';
import { readBlobFrom } from './blob-reader.ts';
import { createRegistryClient, type RegistryClient, type RegistryRequest } from './client.ts';
import type { Credentials } from './credentials.ts';
import type { RegistryHost } from './hosts-file.ts';
import {
  CONFIG_BYTES_MAX,
  type Descriptor,
  MANIFEST_ACCEPT,
  MANIFEST_BYTES_MAX,
} from './manifest.ts';

export interface FetchedManifest {
  readonly body: Buffer;
  readonly contentType: string;
  readonly digest: string;
}

/** The manifest of a digest, where it is here. */
export type StoredManifests = (digest: string) => Promise<Buffer | undefined>;

export interface ImageSource {
  /**
   * By tag or digest. What `stored` has is not sent again: a host is asked for the head alone, whose
   * digest says that the repository has it and that this caller may have it.
   */
  fetchManifest(
    which: string,
    options: { readonly signal: AbortSignal; readonly stored?: StoredManifests },
  ): Promise<FetchedManifest>;
  /** Whole, verified. */
  fetchConfig(descriptor: Descriptor, signal: AbortSignal): Promise<Buffer>;
  /** Runs `attempt` with each host in turn until one succeeds; for a blob that is consumed as it comes. */
  withEachHost<T>(
    need: 'pull' | 'resolve',
    attempt: (client: RegistryClient) => Promise<T>,
  ): Promise<T>;
  /** The bytes of a blob in order; resumed after a broken transfer. Their digest is the reader's to check. */
  readBlob(client: RegistryClient, blob: Descriptor, signal: AbortSignal): AsyncGenerator<Buffer>;
  close(): void;
}

export interface SourceOptions {
  readonly reference: ImageReference;
  readonly hosts: readonly RegistryHost[];
  /** Raises invalid_argument. */
  readonly credentialsFor: (host: RegistryHost) => Credentials;
  readonly idleTimeoutMs: number;
  readonly clock: Clock;
  readonly metrics: Pick<Metrics, 'timed'>;
}

/** Makes the source; close it when the pull is over. */
export function createImageSource(options: SourceOptions): ImageSource {
  const { reference, clock, idleTimeoutMs } = options;
  const name = canonicalReference(reference);
  const clients = options.hosts.map((host) =>
    createRegistryClient({
      host,
      registry: reference.registry,
      repositoryPath: reference.path,
      credentials: options.credentialsFor(host),
      idleTimeoutMs,
      clock,
      metrics: options.metrics,
    }),
  );

  async function withEachHost<T>(
    need: 'pull' | 'resolve',
    attempt: (client: RegistryClient) => Promise<T>,
  ): Promise<T> {
    const tried: { readonly host: string; readonly failure: Failure }[] = [];
    for (const client of clients) {
      if (!(need === 'pull' ? client.host.canPull : client.host.canResolve)) continue;
      try {
        return await attempt(client);
      } catch (error) {
        // Another host can't help against what is wrong here.
        if (!isFailure(error) || isFailure(error, 'limit', 'cancelled', 'bug')) throw error;
        tried.push({ host: client.host.base.host, failure: error });
      }
    }
    throw failureOfAll(name, tried);
  }

  const readBlob: ImageSource['readBlob'] = (client, blob, signal) =>
    readBlobFrom(client, { path: `${reference.path}/blobs/${blob.digest}`, blob, signal }, options);

  return {
    withEachHost,
    readBlob,
    fetchManifest: (which, { signal, stored }) =>
      withEachHost(isDigest(which) ? 'pull' : 'resolve', async (client) => {
        const path = `${reference.path}/manifests/${which}`;
        const request = { path, headers: { accept: MANIFEST_ACCEPT }, signal };
        const here = stored && (await confirmed(client, { which, request, stored }));
        if (here !== undefined) return here;
        const { body, headers } = await client.fetch(request, MANIFEST_BYTES_MAX);
        const digest = digestOf(body);
        const claimed = isDigest(which) ? which : digestIn(headers);
        if (claimed !== undefined && claimed !== digest) {
          throw new Failure(
            'data_loss',
            `the manifest from ${client.host.base.host} has the digest ${digest}, not ${claimed}`,
          );
        }
        return { body, digest, contentType: headers['content-type'] ?? '' };
      }),
    fetchConfig: (descriptor, signal) =>
      withEachHost('pull', async (client) => {
        if (descriptor.sizeBytes > CONFIG_BYTES_MAX) {
          throw new Failure('limit', `an image configuration of ${descriptor.sizeBytes} bytes`);
        }
        const chunks: Buffer[] = [];
        for await (const chunk of readBlob(client, descriptor, signal)) chunks.push(chunk);
        const body = Buffer.concat(chunks);
        const digest = digestOf(body);
        if (digest !== descriptor.digest) {
          throw new Failure(
            'data_loss',
            `the image configuration from ${client.host.base.host} has the digest ${digest}, not ${descriptor.digest}`,
          );
        }
        return body;
      }),
    close() {
      for (const client of clients) client.close();
    },
  };
}

/** The manifest that is here, where a host's head names it. */
async function confirmed(
  client: RegistryClient,
  asked: {
    readonly which: string;
    readonly request: RegistryRequest;
    readonly stored: StoredManifests;
  },
): Promise<FetchedManifest | undefined> {
  const { which, request, stored } = asked;
  const headers = (await client.head(request)) ?? {};
  const digest = digestIn(headers);
  if (digest === undefined || (isDigest(which) && digest !== which)) return undefined;
  const body = await stored(digest);
  if (body === undefined || digestOf(body) !== digest) return undefined;
  return { body, digest, contentType: headers['content-type'] ?? '' };
}

function digestIn(headers: IncomingHttpHeaders): string | undefined {
  const header = headers['docker-content-digest'];
  return typeof header === 'string' && isDigest(header) ? header : undefined;
}

/** `sha256:<hex>` of some bytes. */
export function digestOf(body: Uint8Array): string {
  return `sha256:${createHash('sha256').update(body).digest('hex')}`;
}

/** The last host is the registry itself, so its answer decides the kind; the text has them all. */
function failureOfAll(
  name: string,
  tried: readonly { readonly host: string; readonly failure: Failure }[],
): Failure {
  const last = tried.at(-1);
  if (last === undefined) {
    return new Failure(
      'wrong_state',
      `pull ${name}: no host of its hosts.toml may be used for this`,
    );
  }
  const kind: FailureKind = last.failure.kind;
  const hosts = [...new Set(tried.map(({ host }) => host))].join(', ');
  const whys = tried.map(({ failure }) => failure.message.replace(/^RegistryUnavailable: /, ''));
  const text = `${name}: ${whys.join('; ')} (tried ${hosts})`;
  return kind === 'kubelet_reason'
    ? new Failure(kind, `RegistryUnavailable: pull ${text}`)
    : new Failure(kind, `pull ${text}`);
}
