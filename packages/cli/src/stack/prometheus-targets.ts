// Where Prometheus finds this stack's services: a file in the format of its file_sd_config.

import { chmod } from 'node:fs/promises';
import { hostname } from 'node:os';
import { join } from 'node:path';
import type { Config } from '@cribus/chassis/config.ts';
import { writeFileAtomic } from '@cribus/host/files.ts';
import type { Stack } from './open-stack.ts';
import { SERVICES } from './services.ts';

/**
 * Writes generated/prometheus-targets.json. Prometheus runs as a user of its own, so it may pass the
 * directory and read this one file; everything else there stays root's.
 */
export async function writePrometheusTargets(stack: Stack, config: Config): Promise<void> {
  const directory = stack.paths.generatedDirectory;
  await chmod(directory, 0o711);
  const file = join(directory, 'prometheus-targets.json');
  const text = prometheusTargets(config, nodeLabel(stack, config));
  await writeFileAtomic(file, text, { mode: 0o644 });
}

/** One target for each service, with labels `service` and `node`. */
export function prometheusTargets(config: Config, node: string): string {
  const { address, ports } = config.metrics;
  const host = { '0.0.0.0': '127.0.0.1', '::': '[::1]' }[address] ?? bracketed(address);
  const targets = SERVICES.map((service) => ({
    targets: [`${host}:${ports[service] ?? 0}`],
    labels: { service, node },
  }));
  return `${JSON.stringify(targets, undefined, 2)}\n`;
}

/** The name that a person gave; the default one would be every machine's. */
function nodeLabel(stack: Stack, config: Config): string {
  const { name } = config.node;
  if (name !== 'node') return name;
  return stack.directory === undefined ? hostname() : `${hostname()}-${stack.tag}`;
}

function bracketed(address: string): string {
  return address.includes(':') ? `[${address}]` : address;
}
