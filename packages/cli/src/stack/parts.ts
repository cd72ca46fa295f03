// What each part of a stack is as a process: program, arguments, environment, and a fingerprint that
// tells whether a living one is still the one that should run.

import { createHash } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { type PartName, SERVICES } from './services.ts';

export interface PartPlan {
  readonly name: PartName;
  readonly command: string;
  readonly args: readonly string[];
  readonly env: Readonly<Record<string, string>>;
  readonly fingerprint: string;
  readonly version: string;
  readonly healthPort: number;
}

/** Small young generation and code size first: an idle service is what a node has most of. */
export const NODE_FLAGS = ['--max-semi-space-size=1', '--optimize-for-size'] as const;

/** What the build put into this very file; from sources there is no build. */
export const VERSION = process.env['CRIBUS_VERSION'] ?? '0.0.0-source';

/** What the operator may set for every service and it heeds: no part knows forward proxies. */
const PASSED_ON = /^(HOME|LANG|LC_ALL|TZ|SSL_CERT_FILE|SSL_CERT_DIR|NODE_EXTRA_CA_CERTS|OTEL_.*)$/i;
/** Engines, plugins and iptables live in the sbin directories, which a user's PATH may lack. */
const SYSTEM_PATH = '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin';

/** The directory of the bundles: our own. */
export function bundleDirectory(): string {
  return dirname(fileURLToPath(import.meta.url));
}

/** The environment of every part. */
export function partEnvironment(
  own: Readonly<Record<string, string | undefined>>,
): Record<string, string> {
  const env: Record<string, string> = {
    PATH: own['PATH'] === undefined ? SYSTEM_PATH : `${own['PATH']}:${SYSTEM_PATH}`,
    // glibc would keep an arena for each thread.
    MALLOC_ARENA_MAX: '1',
  };
  for (const [name, value] of Object.entries(own)) {
    if (value !== undefined && PASSED_ON.test(name)) env[name] = value;
  }
  return env;
}

export interface PartSources {
  readonly natsConfig: { readonly file: string; readonly text: string } | undefined;
  readonly redisConfig: { readonly file: string; readonly text: string } | undefined;
  readonly servicesConfig: { readonly file: string; readonly text: string };
  readonly metricsPorts: Readonly<Record<string, number>>;
}

/** The parts to run, servers first. Raises ENOENT for a bundle that isn't there. */
export async function planParts(sources: PartSources): Promise<PartPlan[]> {
  const env = partEnvironment(process.env);
  const { natsConfig, redisConfig, servicesConfig } = sources;
  const plans: PartPlan[] = [];
  if (natsConfig !== undefined) {
    plans.push(
      complete({
        ...{ name: 'nats-server', command: 'nats-server', args: ['-c', natsConfig.file] },
        ...{ env, version: '', healthPort: 0, content: natsConfig.text },
      }),
    );
  }
  if (redisConfig !== undefined) {
    plans.push(
      complete({
        ...{ name: 'redis-server', command: 'redis-server', args: [redisConfig.file] },
        ...{ env, version: '', healthPort: 0, content: redisConfig.text },
      }),
    );
  }
  for (const name of SERVICES) {
    const bundle = join(bundleDirectory(), `${name}.mjs`);
    plans.push(
      complete({
        ...{ name, command: process.execPath, env, version: VERSION },
        args: [...NODE_FLAGS, bundle, '--config', servicesConfig.file],
        healthPort: sources.metricsPorts[name] ?? 0,
        content: `${servicesConfig.text}\0${await fileDigest(bundle)}`,
      }),
    );
  }
  return plans;
}

async function fileDigest(file: string): Promise<string> {
  return createHash('sha256')
    .update(await readFile(file))
    .digest('hex');
}

function complete(plan: Omit<PartPlan, 'fingerprint'> & { readonly content: string }): PartPlan {
  const { content, ...rest } = plan;
  const hash = createHash('sha256');
  for (const word of [plan.command, ...plan.args, JSON.stringify(plan.env), content]) {
    hash.update(word).update('\0');
  }
  return { ...rest, fingerprint: hash.digest('hex') };
}
