// The effective configuration: what the person wrote, and what `up` chose where they left it open. All
// five services read the same file.

import { hostname } from 'node:os';
import type { Config } from '@cribus/chassis/config.ts';
import { stringify } from 'smol-toml';
import type { Stack } from './open-stack.ts';
import { type Ports, portOf } from './ports.ts';
import { SERVICES } from './services.ts';

export interface Choices {
  readonly ports: Ports;
  /** `--nats URL` and `--redis URL`; undefined: from the configuration, else our own. */
  readonly natsUrl: string | undefined;
  readonly redisUrl: string | undefined;
  /** Our own network's directory, where the stack provides one. */
  readonly fallbackCniDirectory: string;
}

/** True if the stack runs its own server. */
export function ownsNats(config: Config, choices: Pick<Choices, 'natsUrl'>): boolean {
  return (choices.natsUrl ?? config.nats.url) === '';
}
export function ownsRedis(config: Config, choices: Pick<Choices, 'redisUrl'>): boolean {
  return (choices.redisUrl ?? config.redis.url) === '';
}

/** Fills in what `up` chose. Pure but for the machine's name, used where servers are shared. */
export function effectiveConfig(stack: Stack, choices: Choices): Config {
  const { config, paths, tag, directory } = stack;
  const ownNats = ownsNats(config, choices);
  const ownRedis = ownsRedis(config, choices);
  const metrics = SERVICES.map((name) => {
    const fixed = config.metrics.ports[name] ?? 0;
    return [name, fixed !== 0 ? fixed : (portOf(choices.ports, name) ?? 0)];
  });
  const { streaming_port: streamingPort } = config.gateway;
  return {
    ...config,
    node: { name: nodeName(stack, ownNats && ownRedis) },
    nats: ownNats
      ? {
          url: `nats://127.0.0.1:${choices.ports.nats}`,
          credentials_dir: paths.credentialsDirectory,
        }
      : { ...config.nats, url: choices.natsUrl ?? config.nats.url },
    redis: ownRedis
      ? { url: `unix://${paths.redisSocket}`, credentials_dir: paths.credentialsDirectory }
      : { ...config.redis, url: choices.redisUrl ?? config.redis.url },
    gateway: {
      ...config.gateway,
      streaming_port: streamingPort !== 0 ? streamingPort : choices.ports.streaming,
    },
    cni: {
      ...config.cni,
      fallback_conf_dir: config.cni.fallback_conf_dir || choices.fallbackCniDirectory,
    },
    // Several stacks of one machine must not meet in one cgroup.
    cgroups:
      directory !== undefined && config.cgroups.root === '/cribus'
        ? { ...config.cgroups, root: `/cribus-${tag}` }
        : config.cgroups,
    metrics: { ...config.metrics, ports: Object.fromEntries(metrics) },
  };
}

/** Nodes that share a bus need names of their own. */
function nodeName(stack: Stack, alone: boolean): string {
  const { name } = stack.config.node;
  if (alone || name !== 'node') return name;
  return `${hostname()
    .replaceAll(/[^A-Za-z0-9_-]/g, '-')
    .slice(0, 40)}-${stack.tag}`;
}

const COMMENTS: Readonly<Record<string, string>> = {
  node: 'The node as the bus knows it.',
  paths: 'Where everything is.',
  nats: 'The bus; credentials_dir holds one nkey seed for each service (empty: none are used).',
  redis: 'Where the reported state goes; credentials_dir holds one password for each service.',
  gateway: 'The CRI endpoint, and where exec, attach and port-forward streams are served.',
  cni: 'Pod networks; fallback_conf_dir is used while conf_dir holds no configuration.',
  images: 'Registries are configured in certs_dir: <host>/hosts.toml.',
  runtimes: "Each handler is a RuntimeClass' name.",
  cgroups: 'Where containers without a cgroup parent go.',
  metrics: 'Each service serves /metrics, /healthz and /readyz on its port.',
  log: 'JSON lines.',
  monitor: 'The program that holds the output of a container.',
};

/** The configuration as TOML, section by section with a comment; parseConfig reads it back. */
export function configText(config: Config, firstLines: readonly string[]): string {
  const { roots, ...rest } = config;
  const { node, ...sections } = rest;
  const ordered: Record<string, unknown> = { node, paths: { ...roots }, ...sections };
  const blocks = Object.entries(ordered).map(([key, value]) => {
    const comment = COMMENTS[key];
    const lines = comment === undefined ? '' : `# ${comment}\n`;
    return `${lines}${stringify({ [key]: value }).trim()}\n`;
  });
  return `${firstLines.map((line) => `# ${line}\n`).join('')}\n${blocks.join('\n')}`;
}
