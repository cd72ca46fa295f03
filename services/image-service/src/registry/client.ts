// One registry host spoken to by the OCI distribution protocol: authentication when it asks for it,
// retries with backoff for what passes, and one kind of failure for what doesn't.

import type { IncomingMessage } from 'node:http';
import { Failure, isFailure } from '@cribus/contracts/failure.ts';
import type { Clock } from '@cribus/host/clock.ts';
import { type Credentials, parseChallenges } from './credentials.ts';
import type { RegistryHost } from './hosts-file.ts';
import { createTransport, type Exchange } from './http.ts';

export interface RegistryRequest {
  readonly method?: 'GET' | 'HEAD';
  /** Below `/v2`, as in `library/busybox/manifests/latest`. */
  readonly path: string;
  readonly headers?: Readonly<Record<string, string>>;
  readonly signal: AbortSignal;
}

export interface RegistryClient {
  readonly host: RegistryHost;
  /**
   * Resolves with an answer of status 2xx, its body unread. Raises not_found, unauthenticated,
   * denied, or kubelet_reason `RegistryUnavailable: …` when the host can't be used.
   */
  request(request: RegistryRequest): Promise<IncomingMessage>;
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
}

const ATTEMPTS_MAX = 5;
const BACKOFF_FIRST_MS = 200;
const BACKOFF_MAX_MS = 10_000;
const RETRY_AFTER_MAX_MS = 30_000;
/** A registry's JSON answer to an error or for a token. */
const SMALL_BODY_BYTES_MAX = 1024 * 1024;
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
  const { host, clock } = options;
  const transport = createTransport(host, options.idleTimeoutMs);
  let authorization =
    options.credentials.kind === 'bearer' ? `Bearer ${options.credentials.token}` : undefined;
  /** Layers are fetched side by side: one of them asks for the token. */
  let authorizing: Promise<string> | undefined;

  function exchangeOf(request: RegistryRequest): Exchange {
    const url = new URL(`${host.base.href.replace(/\/+$/, '')}/${request.path}`);
    if (host.mirrors) url.searchParams.set('ns', options.registry);
    return {
      method: request.method ?? 'GET',
      url,
      headers: {
        ...host.headers,
        ...(authorization === undefined ? {} : { authorization }),
        ...request.headers,
      },
      signal: request.signal,
    };
  }

  async function once(request: RegistryRequest): Promise<IncomingMessage> {
    const shown = authorization;
    const response = await transport.exchange(exchangeOf(request));
    if (response.statusCode !== 401 || host.headers['authorization'] !== undefined) return response;
    const challenge = response.headers['www-authenticate'];
    if (challenge === undefined) return response;
    await readSmall(response);
    if (shown === authorization) {
      authorizing ??= authorize(challenge, request.signal).finally(() => {
        authorizing = undefined;
      });
      authorization = await authorizing;
    }
    return transport.exchange(exchangeOf(request));
  }

  async function authorize(header: string, signal: AbortSignal): Promise<string> {
    const challenges = parseChallenges(header);
    const { credentials } = options;
    const bearer = challenges.find((challenge) => challenge.scheme === 'bearer');
    if (bearer !== undefined && credentials.kind !== 'bearer') {
      return `Bearer ${await fetchToken(bearer.parameters, signal)}`;
    }
    if (challenges.some(({ scheme }) => scheme === 'basic') && credentials.kind === 'password') {
      return basic(credentials);
    }
    throw new Failure('unauthenticated', `${host.base.host} asks for credentials`);
  }

  async function fetchToken(
    parameters: Readonly<Record<string, string>>,
    signal: AbortSignal,
  ): Promise<string> {
    const { credentials } = options;
    const realm = parameters['realm'] ?? '';
    if (!URL.canParse(realm, host.base.href)) {
      throw new Failure('unauthenticated', `${host.base.host} names no token server`);
    }
    const url = new URL(realm, host.base);
    const scope = parameters['scope'] ?? `repository:${options.repositoryPath}:pull`;
    const service = parameters['service'] ?? '';
    let exchange: Exchange;
    if (credentials.kind === 'identity') {
      const form = new URLSearchParams({
        grant_type: 'refresh_token',
        refresh_token: credentials.token,
        client_id: 'cribus',
        service,
        scope,
      });
      const headers = { 'content-type': 'application/x-www-form-urlencoded' };
      exchange = { method: 'POST', url, headers, body: form.toString(), signal };
    } else {
      url.searchParams.set('service', service);
      for (const one of scope.split(' ')) url.searchParams.append('scope', one);
      const headers: Record<string, string> =
        credentials.kind === 'password' ? { authorization: basic(credentials) } : {};
      exchange = { url, headers, signal };
    }
    const response = await transport.exchange(exchange);
    const body = await readSmall(response);
    const status = response.statusCode ?? 0;
    if (status === 401 || status === 403 || status === 400) {
      throw new Failure('unauthenticated', `the token server ${url.host} refuses the credentials`);
    }
    if (status !== 200) throw new UnexpectedStatus(status, retryAfterMs(response));
    const token = tokenOf(body);
    if (token === undefined) {
      throw new Failure('unauthenticated', `the token server ${url.host} answers without a token`);
    }
    return token;
  }

  return {
    host,
    async request(request) {
      for (let attempt = 1; ; attempt += 1) {
        let waitMs = Math.min(BACKOFF_MAX_MS, BACKOFF_FIRST_MS * 2 ** (attempt - 1));
        try {
          const response = await once(request);
          const status = response.statusCode ?? 0;
          if (status >= 200 && status < 300) return response;
          await readSmall(response);
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
    },
    close: () => transport.close(),
  };
}

class UnexpectedStatus extends Error {
  override readonly name = 'UnexpectedStatus';
  readonly status: number;
  readonly retryAfterMs: number;
  constructor(status: number, retryAfter: number) {
    super(`status ${status}`);
    this.status = status;
    this.retryAfterMs = retryAfter;
  }
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

function basic(credentials: { readonly username: string; readonly password: string }): string {
  const pair = `${credentials.username}:${credentials.password}`;
  return `Basic ${Buffer.from(pair, 'utf8').toString('base64')}`;
}

function tokenOf(body: Buffer): string | undefined {
  try {
    const answer = JSON.parse(body.toString('utf8')) as { token?: unknown; access_token?: unknown };
    const token = answer.token || answer.access_token;
    // Anything else could not be sent in a header.
    return typeof token === 'string' && /^[\x21-\x7e]+$/.test(token) ? token : undefined;
  } catch {
    return undefined;
  }
}

function retryAfterMs(response: IncomingMessage): number {
  const header = response.headers['retry-after'];
  if (header === undefined || !/^[0-9]+$/.test(header)) return 0;
  return Math.min(RETRY_AFTER_MAX_MS, Number(header) * 1000);
}

/** A whole body of up to `bytesMax`; raises when it is larger. */
export async function readSmall(
  response: IncomingMessage,
  bytesMax = SMALL_BODY_BYTES_MAX,
): Promise<Buffer> {
  const chunks: Buffer[] = [];
  let bytes = 0;
  for await (const chunk of response) {
    bytes += (chunk as Buffer).length;
    if (bytes > bytesMax) {
      throw new Failure('limit', `an answer of over ${bytesMax} bytes, which is no such thing`);
    }
    chunks.push(chunk as Buffer);
  }
  return Buffer.concat(chunks);
}
