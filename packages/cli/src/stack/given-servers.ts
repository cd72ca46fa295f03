// Servers that are already there (`--nats URL`, `--redis URL`): asked before anything is started, since
// no part of a stack can do without them.

import type { Config } from '@cribus/chassis/config.ts';
import { Failure } from '@cribus/contracts/failure.ts';
import { systemClock } from '@cribus/host/clock.ts';
import { type ProbeResult, probeNats, probeRedis } from './probes.ts';

/** They may be starting at the same time as we are. */
export const ANSWER_BUDGET_MS = 5_000;
const ASK_INTERVAL_MS = 200;

export interface GivenServers {
  readonly config: Config;
  /** Those are the stack's own, and start later. */
  readonly own: { readonly nats: boolean; readonly redis: boolean };
  readonly budgetMs: number;
  /** Told instead of raising, after the budget: then there is no end to waiting but the signal's. */
  readonly onWait?: ((sentence: string) => void) | undefined;
  readonly signal: AbortSignal;
}

/** Raises unavailable naming the option and the address, without what the URL says of credentials. */
export async function requireGivenServers(options: GivenServers): Promise<void> {
  const { config, own } = options;
  if (!own.nats) {
    const { url } = config.nats;
    await requireAnswer({ option: '--nats', url, probe: () => probeNats(url) }, options);
  }
  // The probe speaks no TLS.
  const { url } = config.redis;
  if (!own.redis && config.redis.credentials_dir === '' && !url.startsWith('rediss:')) {
    await requireAnswer({ option: '--redis', url, probe: () => probeRedis(url, '') }, options);
  }
}

interface Server {
  readonly option: string;
  readonly url: string;
  readonly probe: () => Promise<ProbeResult>;
}

async function requireAnswer({ option, url, probe }: Server, options: GivenServers): Promise<void> {
  const { budgetMs, onWait, signal } = options;
  const began = systemClock.monotonicMs();
  let told = false;
  while (!(await probe()).serving) {
    if (!told && systemClock.monotonicMs() - began > budgetMs) {
      const shown = url.replace(/(:\/\/)[^/]*@/, '$1');
      const what = `no server answers there within ${budgetMs / 1000} s`;
      const sentence = `${option} ${shown}: ${what}, or not to these credentials`;
      if (onWait === undefined) throw new Failure('unavailable', sentence);
      onWait(sentence);
      told = true;
    }
    await systemClock.sleep(ASK_INTERVAL_MS, signal);
  }
}
