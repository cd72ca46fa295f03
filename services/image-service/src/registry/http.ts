// One HTTP exchange with a registry: connection reuse, TLS as the host's entry wants it, redirects
// without leaking what was for the first host, and a time-out that counts from the last byte.

import { existsSync, readFileSync } from 'node:fs';
import {
  Agent as HttpAgent,
  request as httpRequest,
  type IncomingMessage,
  type RequestOptions,
} from 'node:http';
import { Agent as HttpsAgent, request as httpsRequest } from 'node:https';
import { rootCertificates } from 'node:tls';
import { Failure } from '@cribus/contracts/failure.ts';
import type { RegistryHost } from './hosts-file.ts';

export interface Exchange {
  readonly method?: 'GET' | 'HEAD' | 'POST';
  readonly url: URL;
  readonly headers: Readonly<Record<string, string | readonly string[]>>;
  readonly body?: string;
  readonly signal: AbortSignal;
}

export interface Transport {
  /** Resolves with the answer's head; redirects are followed, each dropping secrets at a new host. */
  exchange(exchange: Exchange): Promise<IncomingMessage>;
  /** How long a peer may be silent. */
  readonly idleTimeoutMs: number;
  close(): void;
}

/** The peer said nothing for too long. */
export class Stalled extends Error {
  override readonly name = 'Stalled';
}

/** An answer that is no success; `retryAfterMs` is what the server asks us to wait. */
export class UnexpectedStatus extends Error {
  override readonly name = 'UnexpectedStatus';
  readonly status: number;
  readonly retryAfterMs: number;
  constructor(status: number, retryAfter: number) {
    super(`status ${status}`);
    this.status = status;
    this.retryAfterMs = retryAfter;
  }
}

/** A registry's JSON answer to an error or for a token. */
const SMALL_BODY_BYTES_MAX = 1024 * 1024;
const REDIRECTS_MAX = 10;
const CONNECTIONS_MAX = 16;
/** Debian's and most others' bundle; Node's own list lacks what an operator added there. */
const SYSTEM_CA_FILES = ['/etc/ssl/certs/ca-certificates.crt', '/etc/pki/tls/certs/ca-bundle.crt'];
const USER_AGENT = 'cribus/0.1';

/** A transport for one host entry, good for one pull. */
export function createTransport(host: RegistryHost, idleTimeoutMs: number): Transport {
  const shared = { keepAlive: true, maxSockets: CONNECTIONS_MAX, timeout: idleTimeoutMs };
  const plain = new HttpAgent(shared);
  let secure: HttpsAgent | undefined;
  const agentFor = (url: URL) => {
    if (url.protocol === 'http:') return plain;
    secure ??= new HttpsAgent({
      ...shared,
      ca: [...rootCertificates, ...systemCertificates(), ...host.ca],
      cert: host.clientPairs.map((pair) => pair.cert),
      key: host.clientPairs.map((pair) => pair.key),
      rejectUnauthorized: !host.skipVerify,
    });
    return secure;
  };
  return {
    idleTimeoutMs,
    async exchange(exchange) {
      let current = exchange;
      for (let hop = 0; hop <= REDIRECTS_MAX; hop += 1) {
        const response = await send(current, agentFor(current.url), idleTimeoutMs);
        const location = response.headers.location;
        if (![301, 302, 303, 307, 308].includes(response.statusCode ?? 0) || !location) {
          return response;
        }
        response.resume();
        current = redirected(current, location);
      }
      throw new Error(`more than ${REDIRECTS_MAX} redirects from ${exchange.url.host}`);
    },
    close() {
      plain.destroy();
      secure?.destroy();
    },
  };
}

function redirected(exchange: Exchange, location: string): Exchange {
  if (!URL.canParse(location, exchange.url.href)) throw new Error('a redirect to no URL');
  const url = new URL(location, exchange.url);
  if (url.protocol !== 'http:' && url.protocol !== 'https:') {
    throw new Error(`a redirect to ${url.protocol}`);
  }
  if (url.origin === exchange.url.origin) return { ...exchange, url };
  const { accept, range } = exchange.headers;
  return {
    ...exchange,
    url,
    headers: { ...(accept ? { accept } : {}), ...(range ? { range } : {}) },
  };
}

function send(
  exchange: Exchange,
  agent: HttpAgent | HttpsAgent,
  idleTimeoutMs: number,
): Promise<IncomingMessage> {
  return new Promise((resolve, reject) => {
    const options: RequestOptions = {
      method: exchange.method ?? 'GET',
      agent,
      signal: exchange.signal,
      timeout: idleTimeoutMs,
      headers: { 'user-agent': USER_AGENT, ...exchange.headers } as Record<string, string>,
    };
    const request =
      exchange.url.protocol === 'http:'
        ? httpRequest(exchange.url, options)
        : httpsRequest(exchange.url, options);
    let head = false;
    request.on('timeout', () => {
      // Once the body comes, its reader decides: a pause of our own is no stall of the peer's.
      if (!head) request.destroy(new Stalled(`no answer for ${idleTimeoutMs / 1000} s`));
    });
    request.on('response', (response) => {
      head = true;
      resolve(response);
    });
    request.on('error', reject);
    request.end(exchange.body);
  });
}

let systemBundle: string[] | undefined;

function systemCertificates(): string[] {
  if (systemBundle === undefined) {
    const file = SYSTEM_CA_FILES.find((path) => existsSync(path));
    systemBundle = file === undefined ? [] : [readFileSync(file, 'utf8')];
  }
  return systemBundle;
}

/** A whole body of up to `bytesMax`. Raises limit when it is larger, Stalled when it stops coming. */
export async function readSmall(
  response: IncomingMessage,
  idleTimeoutMs: number,
  bytesMax = SMALL_BODY_BYTES_MAX,
): Promise<Buffer> {
  response.setTimeout(idleTimeoutMs, () => {
    response.destroy(new Stalled(`no byte for ${idleTimeoutMs / 1000} s`));
  });
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
