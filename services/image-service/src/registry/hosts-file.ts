// Where a registry's images are fetched from: containerd's `certs.d/<host>/hosts.toml`
// (docs/hosts.md of containerd), read afresh at each pull so that an operator's edit counts at once.

import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { Failure } from '@cribus/contracts/failure.ts';
import { readFileIfExists } from '@cribus/host/files.ts';
import { parse, TomlError } from 'smol-toml';

/** One place to try, in its turn. */
export interface RegistryHost {
  /** Scheme, host, port and path up to and with `/v2`, without a final slash. */
  readonly base: URL;
  /** Asked on behalf of another registry: it learns which by `?ns=`, as containerd's mirrors do. */
  readonly mirrors: boolean;
  /** The registry's own place, not one of its mirrors. */
  readonly own: boolean;
  readonly canPull: boolean;
  readonly canResolve: boolean;
  readonly skipVerify: boolean;
  /** PEM texts, besides the system's. */
  readonly ca: readonly string[];
  readonly clientPairs: readonly { readonly cert: string; readonly key: string }[];
  readonly headers: Readonly<Record<string, readonly string[]>>;
}

type Table = Readonly<Record<string, unknown>>;

const HOSTS_FILE_KEYS = [
  'server',
  'host',
  'capabilities',
  'skip_verify',
  'ca',
  'client',
  'header',
  'override_path',
  // Known to containerd; of no use here.
  'dial_timeout',
];
const HOSTS_MAX = 64;
const CAPABILITIES = ['pull', 'resolve', 'push'];

/** The hosts to try for a registry, in order. Raises invalid_argument naming file and key. */
export async function hostsOf(certsDirectory: string, registry: string): Promise<RegistryHost[]> {
  for (const name of directoryNames(registry)) {
    const directory = join(certsDirectory, name);
    const file = join(directory, 'hosts.toml');
    const text = await readFileIfExists(file);
    if (text !== undefined)
      return parseHostsFile(text.toString('utf8'), { file, directory, registry });
  }
  return [defaultHost(registry)];
}

/** containerd's order: with the port (also as `host_port_`, where a colon is unwelcome), then `_default`. */
function directoryNames(registry: string): string[] {
  const match = /^(.*):([0-9]+)$/.exec(registry);
  const names = match === null ? [] : [`${match[1]}_${match[2]}_`];
  return [...names, registry, '_default'];
}

function defaultHost(registry: string): RegistryHost {
  return {
    base: defaultBase(registry),
    mirrors: false,
    own: true,
    canPull: true,
    canResolve: true,
    skipVerify: false,
    ca: [],
    clientPairs: [],
    headers: {},
  };
}

/** docker.io is a name, not a host; a loopback host speaks plain HTTP, as in containerd. */
function defaultBase(registry: string): URL {
  const host = registry === 'docker.io' ? 'registry-1.docker.io' : registry;
  return new URL(`${isLoopback(host) ? 'http' : 'https'}://${host}/v2`);
}

function isLoopback(host: string): boolean {
  const name = host.replace(/:[0-9]+$/, '');
  if (/:443$/.test(host)) return false;
  return name === 'localhost' || /^127(?:\.[0-9]+){3}$/.test(name) || name === '[::1]';
}

/** Parses the text of a hosts.toml. Raises invalid_argument naming file and key. */
export async function parseHostsFile(
  text: string,
  place: { readonly file: string; readonly directory: string; readonly registry: string },
): Promise<RegistryHost[]> {
  const { file, directory, registry } = place;
  const root = readToml(text, file);
  const hosts: RegistryHost[] = [];
  const context = { file, directory, registry };
  for (const key of Object.keys(root)) {
    if (!HOSTS_FILE_KEYS.includes(key))
      throw bad(file, key, `is unknown; known are ${HOSTS_FILE_KEYS.join(', ')}`);
  }
  const tables = root['host'] === undefined ? {} : table(root['host'], file, 'host');
  if (Object.keys(tables).length > HOSTS_MAX)
    throw bad(file, 'host', `has more than ${HOSTS_MAX} entries`);
  for (const [address, entry] of Object.entries(tables)) {
    const key = `host.${JSON.stringify(address)}`;
    hosts.push(await readHost(table(entry, file, key), { ...context, key, address }));
  }
  const server = root['server'] === undefined ? '' : string(root['server'], file, 'server');
  const { host: _hosts, server: _server, ...own } = root;
  hosts.push(await readHost(own, { ...context, key: '', address: server }));
  return hosts;
}

interface HostPlace {
  readonly file: string;
  readonly directory: string;
  readonly registry: string;
  /** In front of each key in errors. */
  readonly key: string;
  /** Empty: the registry's own. */
  readonly address: string;
}

async function readHost(entry: Table, place: HostPlace): Promise<RegistryHost> {
  const { file, directory } = place;
  const named = (key: string) => (place.key === '' ? key : `${place.key}.${key}`);
  for (const key of Object.keys(entry)) {
    if (!HOSTS_FILE_KEYS.includes(key) || key === 'server' || key === 'host') {
      throw bad(file, named(key), 'is unknown');
    }
  }
  const capabilities =
    entry['capabilities'] === undefined
      ? CAPABILITIES
      : strings(entry['capabilities'], file, named('capabilities'));
  for (const one of capabilities) {
    if (!CAPABILITIES.includes(one)) {
      throw bad(
        file,
        named('capabilities'),
        `has ${JSON.stringify(one)}; allowed are ${CAPABILITIES.join(', ')}`,
      );
    }
  }
  const keep = boolean(entry['override_path'], file, named('override_path'));
  const base = baseUrl(place, keep);
  const read = (path: string, key: string) => readPem(path, { file, directory, key });
  const caPaths = entry['ca'] === undefined ? [] : oneOrMore(entry['ca'], file, named('ca'));
  return {
    base,
    mirrors: isMirror(base.host, place.registry),
    own: place.key === '',
    canPull: capabilities.includes('pull'),
    canResolve: capabilities.includes('resolve'),
    skipVerify: boolean(entry['skip_verify'], file, named('skip_verify')),
    ca: await Promise.all(caPaths.map((path) => read(path, named('ca')))),
    clientPairs: await Promise.all(
      clientPaths(entry['client'], file, named('client')).map(async ([cert, key]) => ({
        cert: await read(cert, named('client')),
        key: await read(key, named('client')),
      })),
    ),
    headers: headers(entry['header'], file, named('header')),
  };
}

function baseUrl(place: HostPlace, overridePath: boolean): URL {
  if (place.address === '') return defaultBase(place.registry);
  const key = place.key === '' ? 'server' : place.key;
  const address = /^[a-z]+:\/\//i.test(place.address)
    ? place.address
    : `${isLoopback(place.address.split('/')[0] ?? '') ? 'http' : 'https'}://${place.address}`;
  if (!URL.canParse(address))
    throw bad(place.file, key, `is no URL: ${JSON.stringify(place.address)}`);
  const url = new URL(address);
  if (url.protocol !== 'http:' && url.protocol !== 'https:') {
    throw bad(place.file, key, `must be http or https: ${JSON.stringify(place.address)}`);
  }
  const path = url.pathname.replace(/\/+$/, '');
  url.pathname = overridePath || path.endsWith('/v2') ? path : `${path}/v2`;
  if (url.hostname === 'docker.io') url.hostname = 'registry-1.docker.io';
  return url;
}

function isMirror(host: string, registry: string): boolean {
  return host !== registry && !(registry === 'docker.io' && host === 'registry-1.docker.io');
}

function clientPaths(value: unknown, file: string, key: string): [string, string][] {
  if (value === undefined) return [];
  if (typeof value === 'string') return [[value, value]];
  if (!Array.isArray(value)) throw bad(file, key, 'must be a path, paths, or pairs of paths');
  return value.map((item: unknown): [string, string] => {
    if (typeof item === 'string') return [item, item];
    const pair = strings(item, file, key);
    const cert = pair[0];
    if (cert === undefined || pair.length > 2)
      throw bad(file, key, 'must have pairs of certificate and key');
    return [cert, pair[1] === undefined || pair[1] === '' ? cert : pair[1]];
  });
}

function headers(value: unknown, file: string, key: string): Record<string, string[]> {
  if (value === undefined) return {};
  const all: Record<string, string[]> = {};
  for (const [name, one] of Object.entries(table(value, file, key))) {
    if (!/^[A-Za-z0-9!#$%&'*+.^_`|~-]+$/.test(name))
      throw bad(file, `${key}.${name}`, 'is no header name');
    all[name.toLowerCase()] = oneOrMore(one, file, `${key}.${name}`);
    if (all[name.toLowerCase()]?.some((text) => /[^\t\x20-\x7e]/.test(text))) {
      throw bad(file, `${key}.${name}`, 'has a value that no header can hold');
    }
  }
  return all;
}

async function readPem(
  path: string,
  place: { readonly file: string; readonly directory: string; readonly key: string },
): Promise<string> {
  const full = path.startsWith('/') ? path : join(place.directory, path);
  try {
    return await readFile(full, 'utf8');
  } catch (error) {
    throw bad(place.file, place.key, `can't be read: ${(error as Error).message}`);
  }
}

function readToml(text: string, file: string): Table {
  try {
    return parse(text);
  } catch (error) {
    if (!(error instanceof TomlError)) throw error;
    throw new Failure('invalid_argument', `${file}:${error.line}: ${error.message.split('\n')[0]}`);
  }
}

function bad(file: string, key: string, why: string): Failure {
  return new Failure('invalid_argument', `${file}: ${key} ${why}`);
}

function table(value: unknown, file: string, key: string): Table {
  if (typeof value === 'object' && value !== null && !Array.isArray(value)) return value as Table;
  throw bad(file, key, 'must be a table');
}

function string(value: unknown, file: string, key: string): string {
  if (typeof value !== 'string') throw bad(file, key, 'must be a string');
  return value;
}

function strings(value: unknown, file: string, key: string): string[] {
  if (!Array.isArray(value)) throw bad(file, key, 'must be an array of strings');
  return value.map((item: unknown) => string(item, file, key));
}

function oneOrMore(value: unknown, file: string, key: string): string[] {
  return typeof value === 'string' ? [value] : strings(value, file, key);
}

function boolean(value: unknown, file: string, key: string): boolean {
  if (value === undefined) return false;
  if (typeof value !== 'boolean') throw bad(file, key, 'must be true or false');
  return value;
}
