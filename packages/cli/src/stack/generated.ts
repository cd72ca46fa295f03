// DIR/state/generated: everything that `up` writes for its parts, and the ports it keeps between
// starts. A person can read all of it.

import { mkdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { type Config, parseConfig } from '@cribus/chassis/config.ts';
import { readFileIfExists, writeFileAtomic } from '@cribus/host/files.ts';
import { type Credentials, provideCredentials } from './credentials.ts';
import { ANSWER_BUDGET_MS, requireGivenServers } from './given-servers.ts';
import { natsConfig } from './nats-config.ts';
import type { Stack } from './open-stack.ts';
import type { PartStates } from './part-state.ts';
import type { PartSources } from './parts.ts';
import {
  isPortFree,
  PORT_NAMES,
  type PortPlan,
  type Ports,
  parsePorts,
  planPorts,
} from './ports.ts';
import { writePrometheusTargets } from './prometheus-targets.ts';
import { redisConfig } from './redis-config.ts';
import { SERVICES } from './services.ts';
import { effectiveConfig, headedConfigText, ownsNats, ownsRedis } from './services-config.ts';

export interface GeneratedPaths {
  readonly ports: string;
  readonly nats: string;
  readonly redis: string;
  readonly services: string;
  readonly network: string;
}

export function generatedPaths(stack: Stack): GeneratedPaths {
  const directory = stack.paths.generatedDirectory;
  return {
    ports: join(directory, 'ports.json'),
    nats: join(directory, 'nats-server.conf'),
    redis: join(directory, 'redis.conf'),
    services: join(directory, 'services.toml'),
    network: join(directory, 'network.json'),
  };
}

/**
 * Chooses ports, makes credentials, and writes the configuration of every part. Raises unavailable
 * when a server that the person named can't be reached, unless it is waited for.
 */
export async function provideConfiguration(options: {
  readonly stack: Stack;
  readonly natsUrl: string | undefined;
  readonly redisUrl: string | undefined;
  /** Parts of this stack that run: the ports are theirs. */
  readonly living: PartStates | 'unknown';
  /** The directory of the network that the stack provides; empty for none. */
  readonly network: () => Promise<string>;
  /** Given servers are waited for as long as the signal allows, and this is told of one that is late. */
  readonly onWait?: (sentence: string) => void;
  readonly signal: AbortSignal;
}): Promise<{
  readonly config: Config;
  readonly sources: PartSources;
  /** Names of ports that had to move. */
  readonly moved: readonly string[];
}> {
  const { stack, natsUrl, redisUrl, living, onWait, signal } = options;
  const [{ ports, moved }, credentials, fallbackCniDirectory] = await Promise.all([
    providePorts(stack, living),
    provideCredentials(stack.paths.credentialsDirectory),
    options.network(),
  ]);
  const config = effectiveConfig(stack, { ports, natsUrl, redisUrl, fallbackCniDirectory });
  const own = {
    nats: ownsNats(stack.config, { natsUrl }),
    redis: ownsRedis(stack.config, { redisUrl }),
  };
  await requireGivenServers({ config, own, budgetMs: ANSWER_BUDGET_MS, onWait, signal });
  const sources = await writeConfigs({ stack, config, ports, credentials, own });
  await writePrometheusTargets(stack, config);
  return { config, sources, moved };
}

/** The ports of the last start; undefined before the first. */
export async function readPorts(stack: Stack): Promise<Ports | undefined> {
  const text = await readFileIfExists(generatedPaths(stack).ports);
  return text === undefined ? undefined : parsePorts(text.toString('utf8'));
}

/**
 * Chooses the ports (the old ones where they can be had) and persists them. Whose processes run is
 * not known where a service manager has them (`living` is 'unknown'): then all old ones stay.
 */
export async function providePorts(
  stack: Stack,
  living: PartStates | 'unknown',
): Promise<PortPlan> {
  const { config } = stack;
  const previous = await readPorts(stack);
  const ours = new Set<string>(living === 'unknown' ? PORT_NAMES : portsOf(living));
  const address = config.metrics.address;
  const plan = await planPorts({
    fixed: { ...config.metrics.ports, streaming: config.gateway.streaming_port },
    previous,
    ours,
    seed: Number.parseInt(stack.tag, 16),
    isFree: async (port) =>
      (await isPortFree(port, '127.0.0.1')) &&
      (address === '127.0.0.1' || (await isPortFree(port, address))),
  });
  await mkdir(stack.paths.generatedDirectory, { recursive: true, mode: 0o700 });
  const text = `${JSON.stringify(plan.ports, undefined, 2)}\n`;
  await writeFileAtomic(generatedPaths(stack).ports, text, { mode: 0o600 });
  return plan;
}

function portsOf(living: PartStates): string[] {
  const names: string[] = Object.keys(living);
  if (living['nats-server'] !== undefined) names.push('nats');
  if (living['cri-gateway'] !== undefined) names.push('streaming');
  return names;
}

/**
 * Writes the configuration of every part, and takes away that of servers that are not the stack's own.
 * `credentials` only where the stack runs own servers.
 */
export async function writeConfigs(options: {
  readonly stack: Stack;
  readonly config: Config;
  readonly ports: Ports;
  readonly credentials: Credentials;
  readonly own: { readonly nats: boolean; readonly redis: boolean };
}): Promise<PartSources> {
  const { stack, config, ports, credentials, own } = options;
  const paths = generatedPaths(stack);
  const handlers = Object.fromEntries(
    Object.entries(config.runtimes.handlers).map(([name, row]) => [name, row.family]),
  );
  const nats = natsConfig({
    node: config.node.name,
    port: ports.nats,
    handlers,
    publicKeys: credentials.publicKeys,
  });
  const redis = redisConfig({
    socket: stack.paths.redisSocket,
    directory: stack.paths.generatedDirectory,
    passwords: credentials.redisPasswords,
  });
  const services = headedConfigText(config, [
    'Written by "cribus up" at each start: changes here are lost. What a person sets is in',
    stack.paths.configFile,
  ]);
  const files = [
    { file: paths.nats, text: nats, wanted: own.nats },
    { file: paths.redis, text: redis, wanted: own.redis },
    { file: paths.services, text: services, wanted: true },
  ];
  await Promise.all(
    files.map(({ file, text, wanted }) =>
      // The units of the servers start where their file is.
      wanted ? writeFileAtomic(file, text, { mode: 0o600 }) : rm(file, { force: true }),
    ),
  );
  return {
    natsConfig: own.nats ? { file: paths.nats, text: nats } : undefined,
    redisConfig: own.redis ? { file: paths.redis, text: redis } : undefined,
    servicesConfig: { file: paths.services, text: services },
    metricsPorts: Object.fromEntries(
      SERVICES.map((name) => [name, config.metrics.ports[name] ?? 0]),
    ),
  };
}

/** What the last `up` gave its services, or before the first one what the person wrote. */
export async function currentConfig(stack: Stack): Promise<Config> {
  const file = generatedPaths(stack).services;
  const text = await readFileIfExists(file);
  if (text === undefined) return stack.config;
  return parseConfig(text.toString('utf8'), { file, directory: stack.directory });
}

/** What the last `up` was given as --nats and --redis: servers without our credentials aren't ours. */
export function urlsGiven(last: Config): {
  readonly natsUrl: string | undefined;
  readonly redisUrl: string | undefined;
} {
  const given = (server: Config['nats']) =>
    server.credentials_dir === '' && server.url !== '' ? server.url : undefined;
  return { natsUrl: given(last.nats), redisUrl: given(last.redis) };
}
