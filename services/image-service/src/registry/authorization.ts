// What a registry host is shown: the caller's credentials, or a token that they bought.

import type { IncomingMessage } from 'node:http';
import { Failure } from '@cribus/contracts/failure.ts';
import { type Credentials, parseChallenges } from './credentials.ts';
import type { RegistryHost } from './hosts-file.ts';
import { type Exchange, readSmall, type Transport, UnexpectedStatus } from './http.ts';

export interface AuthorizationOptions {
  readonly host: RegistryHost;
  readonly repositoryPath: string;
  readonly credentials: Credentials;
  readonly transport: Transport;
}

export interface Authorization {
  /** The header's value as it is now. */
  header(): string | undefined;
  /**
   * Answers the challenge of a 401 that came when `shown` was shown. Raises unauthenticated, or
   * UnexpectedStatus of the token server.
   */
  renew(challenge: string, shown: string | undefined, signal: AbortSignal): Promise<void>;
}

export function createAuthorization(options: AuthorizationOptions): Authorization {
  const { credentials } = options;
  let header = credentials.kind === 'bearer' ? `Bearer ${credentials.token}` : undefined;
  /** Layers are fetched side by side: one of them asks for the token. */
  let renewing: Promise<string> | undefined;
  return {
    header: () => header,
    async renew(challenge, shown, signal) {
      if (shown !== header) return;
      renewing ??= authorize(options, challenge, signal).finally(() => {
        renewing = undefined;
      });
      header = await renewing;
    },
  };
}

async function authorize(
  options: AuthorizationOptions,
  challenge: string,
  signal: AbortSignal,
): Promise<string> {
  const { credentials, host } = options;
  const challenges = parseChallenges(challenge);
  const bearer = challenges.find(({ scheme }) => scheme === 'bearer');
  if (bearer !== undefined && credentials.kind !== 'bearer') {
    return `Bearer ${await fetchToken(options, bearer.parameters, signal)}`;
  }
  if (challenges.some(({ scheme }) => scheme === 'basic') && credentials.kind === 'password') {
    return basic(credentials);
  }
  throw new Failure('unauthenticated', `${host.base.host} asks for credentials`);
}

async function fetchToken(
  options: AuthorizationOptions,
  parameters: Readonly<Record<string, string>>,
  signal: AbortSignal,
): Promise<string> {
  const { host, transport } = options;
  const realm = parameters['realm'] ?? '';
  if (!URL.canParse(realm, host.base.href)) {
    throw new Failure('unauthenticated', `${host.base.host} names no token server`);
  }
  const url = new URL(realm, host.base);
  const response = await transport.exchange(tokenExchange(options, { url, parameters, signal }));
  const body = await readSmall(response, transport.idleTimeoutMs);
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

/** As the distribution specification's token server wants it (distribution, spec/auth). */
function tokenExchange(
  { credentials, repositoryPath }: AuthorizationOptions,
  to: {
    readonly url: URL;
    readonly parameters: Readonly<Record<string, string>>;
    readonly signal: AbortSignal;
  },
): Exchange {
  const { url, signal } = to;
  const scope = to.parameters['scope'] ?? `repository:${repositoryPath}:pull`;
  const service = to.parameters['service'] ?? '';
  if (credentials.kind === 'identity') {
    const form = new URLSearchParams({
      grant_type: 'refresh_token',
      refresh_token: credentials.token,
      client_id: 'cribus',
      service,
      scope,
    });
    const headers = { 'content-type': 'application/x-www-form-urlencoded' };
    return { method: 'POST', url, headers, body: form.toString(), signal };
  }
  url.searchParams.set('service', service);
  for (const one of scope.split(' ')) url.searchParams.append('scope', one);
  const headers: Record<string, string> =
    credentials.kind === 'password' ? { authorization: basic(credentials) } : {};
  return { url, headers, signal };
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

const RETRY_AFTER_MAX_MS = 30_000;

/** What the server asks us to wait, up to half a minute; 0 where it says nothing. */
export function retryAfterMs(response: IncomingMessage): number {
  const header = response.headers['retry-after'];
  if (header === undefined || !/^[0-9]+$/.test(header)) return 0;
  return Math.min(RETRY_AFTER_MAX_MS, Number(header) * 1000);
}
