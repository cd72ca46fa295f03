// An image's source: the hosts of its registry in their order, with the next one tried when one
// fails, every manifest and small blob verified, and large blobs resumed where a transfer broke.

import { createHash } from 'node:crypto';
import type { Metrics } from '@cribus/chassis/metrics.ts';
import { Failure, type FailureKind, isFailure } from '@cribus/contracts/failure.ts';
import type { ImageReference } from '@cribus/contracts/image-reference.ts';
import { canonicalReference } from '@cribus/contracts/image-reference.ts';
import type { Clock } from '@cribus/host/clock.ts';
import { createRegistryClient, isTransient, type RegistryClient } from './client.ts';
import type { Credentials } from './credentials.ts';
import type { RegistryHost } from './hosts-file.ts';
import { Stalled } from './http.ts';
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

export interface ImageSource {
  /** By tag or digest. */
  fetchManifest(which: string, signal: AbortSignal): Promise<FetchedManifest>;
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

/** How often one blob is taken up again at one host; each must have brought something new. */
const RESUMES_MAX = 20;
const RESUMES_WITHOUT_PROGRESS_MAX = 4;
const RESUME_PAUSE_MS = 300;

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

  async function* readBlob(
    client: RegistryClient,
    blob: Descriptor,
    signal: AbortSignal,
  ): AsyncGenerator<Buffer> {
    let received = 0;
    let fruitless = 0;
    for (let resumes = 0; received < blob.sizeBytes || resumes === 0; resumes += 1) {
      const before = received;
      try {
        for await (const chunk of readFrom(client, { blob, offset: received, signal })) {
          received += chunk.length;
          if (received > blob.sizeBytes) {
            throw new Failure(
              'data_loss',
              `${blob.digest} is longer than its ${blob.sizeBytes} bytes`,
            );
          }
          yield chunk;
        }
        if (received < blob.sizeBytes && (received === before || resumes >= RESUMES_MAX)) {
          throw new Failure(
            'data_loss',
            `${blob.digest} from ${client.host.base.host} is truncated: ${received} of ${blob.sizeBytes} bytes`,
          );
        }
      } catch (error) {
        signal.throwIfAborted();
        const broken = error instanceof Stalled || isTransient(error) || isAbortedTransfer(error);
        if (!broken) throw error;
        fruitless = received > before ? 0 : fruitless + 1;
        if (resumes >= RESUMES_MAX || fruitless >= RESUMES_WITHOUT_PROGRESS_MAX) {
          throw new Failure(
            'kubelet_reason',
            `RegistryUnavailable: ${client.host.base.host}: ${(error as Error).message} (${received} of ${blob.sizeBytes} bytes of ${blob.digest})`,
          );
        }
        await clock.sleep(RESUME_PAUSE_MS * (fruitless + 1), signal);
      }
      if (blob.sizeBytes === 0) return;
    }
  }

  async function* readFrom(
    client: RegistryClient,
    at: { readonly blob: Descriptor; readonly offset: number; readonly signal: AbortSignal },
  ): AsyncGenerator<Buffer> {
    const { blob, offset, signal } = at;
    const response = await client.open({
      path: `${reference.path}/blobs/${blob.digest}`,
      headers: offset > 0 ? { range: `bytes=${offset}-` } : {},
      signal,
    });
    // A server without ranges sends everything again.
    let skip = response.statusCode === 206 ? 0 : offset;
    let waitingSinceMs: number | undefined = clock.monotonicMs();
    const over = new AbortController();
    const watch = (async () => {
      while (!over.signal.aborted) {
        await clock.sleep(Math.min(1000, idleTimeoutMs / 4), over.signal);
        if (waitingSinceMs === undefined) continue;
        if (clock.monotonicMs() - waitingSinceMs < idleTimeoutMs) continue;
        response.destroy(new Stalled(`no byte for ${idleTimeoutMs / 1000} s`));
        return;
      }
    })();
    watch.catch(() => {});
    try {
      for await (const chunk of response) {
        waitingSinceMs = undefined;
        const data = chunk as Buffer;
        const fresh = data.subarray(Math.min(skip, data.length));
        skip -= data.length - fresh.length;
        if (fresh.length > 0) yield fresh;
        waitingSinceMs = clock.monotonicMs();
      }
    } finally {
      over.abort();
      response.destroy();
    }
  }

  return {
    withEachHost,
    readBlob,
    fetchManifest: (which, signal) =>
      withEachHost(which.startsWith('sha256:') ? 'pull' : 'resolve', async (client) => {
        const path = `${reference.path}/manifests/${which}`;
        const request = { path, headers: { accept: MANIFEST_ACCEPT }, signal };
        const { body, headers } = await client.fetch(request, MANIFEST_BYTES_MAX);
        const digest = digestOf(body);
        const claimed = which.startsWith('sha256:') ? which : headers['docker-content-digest'];
        if (typeof claimed === 'string' && claimed.startsWith('sha256:') && claimed !== digest) {
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

/** `sha256:<hex>` of some bytes. */
export function digestOf(body: Uint8Array): string {
  return `sha256:${createHash('sha256').update(body).digest('hex')}`;
}

function isAbortedTransfer(error: unknown): boolean {
  return error instanceof Error && (error.message === 'aborted' || error.message === 'terminated');
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
