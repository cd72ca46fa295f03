// One registry host spoken to by the OCI distribution protocol: authentication when it asks for it,
// retries with backoff for what passes, and one kind of failure for what doesn't.

import type { IncomingHttpHeaders, IncomingMessage } from 'node:http';
import type { Metrics } from '@cribus/chassis/metrics.ts';
import { Failure, isFailure } from '@cribus/contracts/failure.ts';
import type { Clock } from '@cribus/host/clock.ts';
import { createAuthorization, retryAfterMs } from './authorization.ts';
import type { Credentials } from './credentials.ts';
import type { RegistryHost } from './hosts-file.ts';
import { createTransport, type Exchange, readSmall, UnexpectedStatus } from './http.ts';

export interface RegistryRequest {
  /** Below `/v2`, as in `library/busybox/manifests/latest`. */
  readonly path: string;
  readonly headers?: Readonly<Record<string, string>>;
  readonly signal: AbortSignal;
}

export interface RegistryClient {
  readonly host: RegistryHost;
  /**
   * Asks once for the head alone; undefined where the answer is no success, and then `fetch` says
   * why: not every registry answers HEAD as it would GET. After what may pass it has waited as between
   * two attempts. Raises unauthenticated, denied, or kubelet_reason `RegistryUnavailable: …`.
   */
  head(request: RegistryRequest): Promise<IncomingHttpHeaders | undefined>;
  /**
   * Resolves with an answer of status 2xx, its body unread. Raises not_found, unauthenticated,
   * denied, or kubelet_reason `RegistryUnavailable: …` when the host can't be used.
   */
  open(request: RegistryRequest): Promise<IncomingMessage>;
  /** As open, with the whole body of up to `bytesMax`; raises limit when it is larger. */
  fetch(
    request: RegistryRequest,
    bytesMax: number,
  ): Promise<{ readonly body: Buffer; readonly headers: IncomingHttpHeaders }>;
  close(): void;
}

export interface ClientOptions {
  readonly host: RegistryHost;
  /** As in the reference: mirrors are told. */
  readonly registry: string;
  readonly repositoryPath: string;
  readonly credentials: Credentials;
  readonly idleTimeoutMs: number;
  readonly clock: Clock;
  readonly metrics: Pick<Metrics, 'timed'>;
}

type Method = 'GET' | 'HEAD';

const ATTEMPTS_MAX = 5;
const BACKOFF_FIRST_MS = 200;
const BACKOFF_MAX_MS = 10_000;
const TRANSIENT_STATUS = [408, 425, 429, 500, 502, 503, 504];
const TRANSIENT_CODES = [
  'ECONNRESET',
  'EPIPE',
  'EAI_AGAIN',
  'ETIMEDOUT',
  'ERR_STREAM_PREMATURE_CLOSE',
];

/** Makes a client for one host; close it to end its connections. */
export function createRegistryClient(options: ClientOptions): RegistryClient {
  const { host, clock, metrics } = options;
  const transport = createTransport(host, options.idleTimeoutMs);
  const authorization = createAuthorization({ ...options, transport });

  function exchangeOf(request: RegistryRequest, method: Method): Exchange {
    const url = new URL(`${host.base.href.replace(/\/+$/, '')}/${request.path}`);
    if (host.mirrors) url.searchParams.set('ns', options.registry);
    const shown = authorization.header();
    return {
      method,
      url,
      headers: {
        ...host.headers,
        ...(shown === undefined ? {} : { authorization: shown }),
        ...request.headers,
      },
      signal: request.signal,
    };
  }

  async function once(request: RegistryRequest, method: Method): Promise<IncomingMessage> {
    const shown = authorization.header();
    const response = await transport.exchange(exchangeOf(request, method));
    if (response.statusCode !== 401 || host.headers['authorization'] !== undefined) return response;
    const challenge = response.headers['www-authenticate'];
    if (challenge === undefined) return response;
    await readSmall(response, options.idleTimeoutMs);
    await authorization.renew(challenge, shown, request.signal);
    return await transport.exchange(exchangeOf(request, method));
  }

  async function head(request: RegistryRequest): Promise<IncomingHttpHeaders | undefined> {
    let waitMs = BACKOFF_FIRST_MS;
    try {
      const response = await once(request, 'HEAD');
      response.resume();
      const status = response.statusCode ?? 0;
      if (status >= 200 && status < 300) return response.headers;
      if (!TRANSIENT_STATUS.includes(status)) return undefined;
      waitMs = Math.max(waitMs, retryAfterMs(response));
    } catch (error) {
      request.signal.throwIfAborted();
      if (!isTransient(error)) throw hostFailure(error, { host: host.base.host, ...request });
    }
    await clock.sleep(waitMs, request.signal);
    return undefined;
  }

  /** `read` belongs to the attempt: a small body that breaks off is asked for again. */
  async function attempts<T>(
    request: RegistryRequest,
    read: (response: IncomingMessage) => Promise<T>,
  ): Promise<T> {
    for (let attempt = 1; ; attempt += 1) {
      let waitMs = Math.min(BACKOFF_MAX_MS, BACKOFF_FIRST_MS * 2 ** (attempt - 1));
      try {
        const response = await once(request, 'GET');
        const status = response.statusCode ?? 0;
        if (status >= 200 && status < 300) return await read(response);
        await readSmall(response, options.idleTimeoutMs);
        throw new UnexpectedStatus(status, retryAfterMs(response));
      } catch (error) {
        request.signal.throwIfAborted();
        if (!isTransient(error) || attempt >= ATTEMPTS_MAX) {
          throw hostFailure(error, { host: host.base.host, path: request.path });
        }
        if (error instanceof UnexpectedStatus) waitMs = Math.max(waitMs, error.retryAfterMs);
      }
      await clock.sleep(waitMs, request.signal);
    }
  }

  return {
    host,
    head: (request) => metrics.timed('registry', 'head', () => head(request)),
    open: (request) =>
      metrics.timed('registry', 'open', () => attempts(request, async (response) => response)),
    fetch: (request, bytesMax) =>
      metrics.timed('registry', 'fetch', () =>
        attempts(request, async (response) => ({
          body: await readSmall(response, options.idleTimeoutMs, bytesMax),
          headers: response.headers,
        })),
      ),
    close: () => transport.close(),
  };
}

/** True for what may pass by itself: a broken connection, a busy server. */
export function isTransient(error: unknown): boolean {
  if (error instanceof UnexpectedStatus) return TRANSIENT_STATUS.includes(error.status);
  if (!(error instanceof Error)) return false;
  return 'code' in error && TRANSIENT_CODES.includes(String(error.code));
}

function hostFailure(
  error: unknown,
  place: { readonly host: string; readonly path: string },
): Failure {
  if (isFailure(error)) return error;
  if (error instanceof UnexpectedStatus) {
    const { status } = error;
    const what = `${place.host} answers ${status} for ${place.path}`;
    if (status === 404) return new Failure('not_found', what);
    if (status === 401) return new Failure('unauthenticated', what);
    if (status === 403) return new Failure('denied', what);
    // We asked for the rest of a blob, and there is none.
    if (status === 416) return new Failure('data_loss', `${what}: the blob there is truncated`);
    return new Failure('kubelet_reason', `RegistryUnavailable: ${what}`);
  }
  const why = error instanceof Error ? error.message || String(error) : String(error);
  return new Failure('kubelet_reason', `RegistryUnavailable: ${place.host}: ${why}`, {
    cause: error,
  });
}
