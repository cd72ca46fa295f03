// What a registry is shown so that it lets us in: the caller's AuthConfig, and the challenge with
// which a registry answers (RFC 9110 section 11, distribution's token authentication).

import { Failure } from '@cribus/contracts/failure.ts';
import type { AuthConfig } from '@cribus/contracts/gen/cri/v1/api.ts';

export type Credentials =
  | { readonly kind: 'none' }
  | { readonly kind: 'password'; readonly username: string; readonly password: string }
  /** An OAuth2 refresh token. */
  | { readonly kind: 'identity'; readonly token: string }
  /** Shown as it is. */
  | { readonly kind: 'bearer'; readonly token: string };

/**
 * What the caller gave for a server of one of these names; none when it is for another one. Raises
 * invalid_argument when `auth` is not base64 of user:password; no message holds any of it.
 */
export function credentialsOf(
  auth: AuthConfig | undefined,
  servers: readonly string[],
): Credentials {
  if (auth === undefined) return { kind: 'none' };
  const { serverAddress } = auth;
  if (serverAddress !== '' && !servers.map(serverName).includes(serverName(serverAddress))) {
    return { kind: 'none' };
  }
  if (auth.registryToken !== '') return { kind: 'bearer', token: auth.registryToken };
  if (auth.identityToken !== '') return { kind: 'identity', token: auth.identityToken };
  if (auth.username !== '') {
    return { kind: 'password', username: auth.username, password: auth.password };
  }
  if (auth.auth === '') return { kind: 'none' };
  const decoded = Buffer.from(auth.auth, 'base64').toString('utf8');
  const colon = decoded.indexOf(':');
  if (colon < 0) {
    throw new Failure('invalid_argument', "the request's auth is not base64 of user:password");
  }
  return {
    kind: 'password',
    username: decoded.slice(0, colon),
    // Docker pads it with NULs.
    password: decoded.slice(colon + 1).replace(/\0+$/, ''),
  };
}

function serverName(address: string): string {
  const host = address.replace(/^[a-z]+:\/\//i, '').split('/')[0] ?? '';
  return ['index.docker.io', 'registry-1.docker.io', 'docker.io'].includes(host)
    ? 'docker.io'
    : host;
}

/** One scheme of a WWW-Authenticate header, with lower-case names. */
export interface Challenge {
  readonly scheme: string;
  readonly parameters: Readonly<Record<string, string>>;
}

const CHALLENGE_CHARACTERS_MAX = 8192;

/** Parses `Bearer realm="…",service="…"` and the like; what can't be understood is left out. */
export function parseChallenges(header: string): Challenge[] {
  const challenges: { scheme: string; parameters: Record<string, string> }[] = [];
  let rest = header.slice(0, CHALLENGE_CHARACTERS_MAX).trim();
  const word = /^([A-Za-z0-9!#$%&'*+.^_`|~-]+)/;
  while (rest !== '') {
    const name = word.exec(rest)?.[1];
    if (name === undefined) break;
    rest = rest.slice(name.length).trimStart();
    const value = rest.startsWith('=') ? readValue(rest.slice(1).trimStart()) : undefined;
    const last = challenges.at(-1);
    if (value === undefined) challenges.push({ scheme: name.toLowerCase(), parameters: {} });
    else {
      if (last !== undefined) last.parameters[name.toLowerCase()] = value.text;
      rest = value.rest;
    }
    rest = rest.replace(/^[\s,]+/, '');
  }
  return challenges;
}

function readValue(source: string): { text: string; rest: string } {
  if (!source.startsWith('"')) {
    const text = /^[^\s,]*/.exec(source)?.[0] ?? '';
    return { text, rest: source.slice(text.length) };
  }
  const quoted = /^"((?:[^"\\]|\\.)*)"?/.exec(source);
  return {
    text: (quoted?.[1] ?? '').replace(/\\(.)/g, '$1'),
    rest: source.slice(quoted?.[0].length ?? source.length),
  };
}
