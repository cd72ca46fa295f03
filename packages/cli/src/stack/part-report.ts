// What each part of a stack is doing right now.

import { readFile } from 'node:fs/promises';
import type { Config } from '@cribus/chassis/config.ts';
import { systemClock } from '@cribus/host/clock.ts';
import { isErrno } from '@cribus/host/errno.ts';
import { isAlive } from '@cribus/host/processes.ts';
import { operatorPassword } from './credentials.ts';
import type { Stack } from './open-stack.ts';
import { type PartState, readPartStates } from './part-state.ts';
import { type ProbeResult, probeNats, probeRedis, probeService } from './probes.ts';
import { PART_NAMES, type PartName } from './services.ts';

export interface PartReport {
  readonly name: PartName;
  /** A part that `cribus up` did not start (`--nats`, a service manager's) has no pid here. */
  readonly state: 'running' | 'starting' | 'dead';
  readonly version: string;
  readonly pid?: number;
  readonly uptimeS?: number;
  /** Proportional set size, or resident set size where the kernel doesn't tell. */
  readonly memoryBytes?: number;
}

/** Every part by name, the servers first. */
export async function describeParts(stack: Stack, config: Config): Promise<PartReport[]> {
  const states = await readPartStates(stack.paths.roots);
  return Promise.all(
    PART_NAMES.map(async (name) => {
      const state = states[name];
      const external = isExternal(name, config);
      if (!external && state !== undefined && !isAlive(state.identity)) {
        return { name, state: 'dead', version: state.version } as const;
      }
      const probe = await probePart({ name, state, stack, config });
      // Started by a service manager, or somebody else's: only what it answers is known.
      if (external || state === undefined) {
        return { name, state: probe.serving ? 'running' : 'dead', version: probe.version } as const;
      }
      const nowMs = Number(systemClock.nowNs() / 1_000_000n);
      const memoryBytes = await memoryOf(state.identity.pid);
      return {
        name,
        state: probe.serving ? 'running' : 'starting',
        version: probe.version || state.version,
        pid: state.identity.pid,
        uptimeS: Math.max(0, Math.round((nowMs - state.startedAtMs) / 1000)),
        ...(memoryBytes === undefined ? {} : { memoryBytes }),
      } as const;
    }),
  );
}

/** Own servers are used with our credentials. */
function isExternal(name: PartName, config: Config): boolean {
  if (name === 'nats-server') return config.nats.url !== '' && config.nats.credentials_dir === '';
  if (name === 'redis-server') {
    return config.redis.url !== '' && config.redis.credentials_dir === '';
  }
  return false;
}

async function probePart(options: {
  readonly name: PartName;
  readonly state: PartState | undefined;
  readonly stack: Stack;
  readonly config: Config;
}): Promise<ProbeResult> {
  const { name, state, stack, config } = options;
  if (name === 'nats-server') return probeNats(config.nats.url);
  if (name === 'redis-server') {
    const own = (await operatorPassword(stack.paths.credentialsDirectory)) ?? '';
    return probeRedis(config.redis.url, isExternal(name, config) ? '' : own);
  }
  const port = state?.healthPort ?? config.metrics.ports[name] ?? 0;
  return probeService(port, config.metrics.address);
}

async function memoryOf(pid: number): Promise<number | undefined> {
  try {
    const rollup = await readFile(`/proc/${pid}/smaps_rollup`, 'latin1');
    const pss = /^Pss:\s+(\d+) kB$/m.exec(rollup);
    if (pss !== null) return Number(pss[1]) * 1024;
    const status = await readFile(`/proc/${pid}/status`, 'latin1');
    const rss = /^VmRSS:\s+(\d+) kB$/m.exec(status);
    return rss === null ? undefined : Number(rss[1]) * 1024;
  } catch (error) {
    if (isErrno(error, 'ENOENT', 'ESRCH', 'EACCES')) return undefined;
    throw error;
  }
}
