// Servers that are already there (`--nats URL`, `--redis URL`): asked before anything is started, since
// no part of a stack can do without them.

import type { Config } from '@cribus/chassis/config.ts';
import { Failure } from '@cribus/contracts/failure.ts';
import { systemClock } from '@cribus/host/clock.ts';
import { type ProbeResult, probeNats, probeRedis } from './probes.ts';

/** They may be starting at the same time as we are. */
const ANSWER_BUDGET_MS = 5_000;
const ASK_INTERVAL_MS = 200;

/** Raises unavailable naming the option and the address, without what the URL says of credentials. */
export async function requireGivenServers(
  config: Config,
  own: { readonly nats: boolean; readonly redis: boolean },
  signal: AbortSignal,
): Promise<void> {
  if (!own.nats) {
    const { url } = config.nats;
    await requireAnswer({ option: '--nats', url, probe: () => probeNats(url), signal });
  }
  // The probe speaks no TLS.
  const { url } = config.redis;
  if (!own.redis && config.redis.credentials_dir === '' && !url.startsWith('rediss:')) {
    await requireAnswer({ option: '--redis', url, probe: () => probeRedis(url, ''), signal });
  }
}

async function requireAnswer(options: {
  readonly option: string;
  readonly url: string;
  readonly probe: () => Promise<ProbeResult>;
  readonly signal: AbortSignal;
}): Promise<void> {
  const { option, url, probe, signal } = options;
  const began = systemClock.monotonicMs();
  while (!(await probe()).serving) {
    if (systemClock.monotonicMs() - began > ANSWER_BUDGET_MS) {
      const shown = url.replace(/(:\/\/)[^/]*@/, '$1');
      const what = `no server answers there within ${ANSWER_BUDGET_MS / 1000} s`;
      throw new Failure('unavailable', `${option} ${shown}: ${what}, or not to these credentials`);
    }
    await systemClock.sleep(ASK_INTERVAL_MS, signal);
  }
}
