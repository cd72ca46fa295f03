// The effective configuration: what the person wrote, and what `up` chose where they left it open. All
// five services read the same file.

import { hostname } from 'node:os';
import type { Config } from '@cribus/chassis/config.ts';
import { configText } from '@cribus/chassis/config-reference.ts';
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

/** The configuration as a documented TOML that parseConfig reads back, below some comment lines. */
export function headedConfigText(config: Config, firstLines: readonly string[]): string {
  const head = firstLines.map((line) => `# ${line}\n`).join('');
  return `${head}\n${configText(config, { documented: true })}`;
}
