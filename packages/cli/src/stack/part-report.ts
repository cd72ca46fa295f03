// What each part of a stack is doing right now.

import { readFile } from 'node:fs/promises';
import type { Config } from '@cribus/chassis/config.ts';
import { systemClock } from '@cribus/host/clock.ts';
import { isErrno } from '@cribus/host/errno.ts';
import { isAlive } from '@cribus/host/processes.ts';
import { operatorPassword } from './credentials.ts';
import type { Stack } from './open-stack.ts';
import { type PartState, readPartStates } from './part-state.ts';
import { VERSION } from './parts.ts';
import { type ProbeResult, probeNats, probeRedis, probeService } from './probes.ts';
import { PART_NAMES, type PartName } from './services.ts';
import { describeUnits, type UnitState } from './units.ts';

export interface PartReport {
  readonly name: PartName;
  /** A server of somebody else's (`--nats`, `--redis`) has no pid here. */
  readonly state: 'running' | 'starting' | 'dead';
  readonly version: string;
  readonly pid?: number;
  readonly uptimeS?: number;
  /** Proportional set size, or resident set size where the kernel doesn't tell. */
  readonly memoryBytes?: number;
}

interface Living {
  readonly pid: number;
  readonly startedAtMs: number;
  readonly version: string;
}

/** Every part by name, the servers first. */
export async function describeParts(stack: Stack, config: Config): Promise<PartReport[]> {
  const [states, units] = await Promise.all([
    readPartStates(stack.paths.roots),
    describeUnits(stack),
  ]);
  return Promise.all(
    PART_NAMES.map(async (name) => {
      const external = isExternal(name, config);
      const unit = external ? undefined : units.get(name);
      // What a former `up` left on record says nothing of a unit.
      const state = unit === undefined ? states[name] : undefined;
      if (!external && state !== undefined && !isAlive(state.identity)) {
        return { name, state: 'dead', version: state.version } as const;
      }
      const probe = await probePart({ name, state, stack, config });
      const living = external ? undefined : livingOf(name, unit, state);
      // Somebody else's: only what it answers is known.
      if (living === undefined) {
        return { name, state: probe.serving ? 'running' : 'dead', version: probe.version } as const;
      }
      return describeLiving(name, living, probe);
    }),
  );
}

/** A unit's process is of the installation that this command is of: an upgrade restarts it. */
function livingOf(
  name: PartName,
  unit: UnitState | undefined,
  state: PartState | undefined,
): Living | undefined {
  if (unit !== undefined) return { ...unit, version: name.endsWith('-server') ? '' : VERSION };
  if (state === undefined) return undefined;
  const { identity, startedAtMs, version } = state;
  return { pid: identity.pid, startedAtMs, version };
}

async function describeLiving(
  name: PartName,
  living: Living,
  probe: ProbeResult,
): Promise<PartReport> {
  const nowMs = Number(systemClock.nowNs() / 1_000_000n);
  const memoryBytes = await memoryOf(living.pid);
  return {
    name,
    state: probe.serving ? 'running' : 'starting',
    version: probe.version || living.version,
    pid: living.pid,
    uptimeS: Math.max(0, Math.round((nowMs - living.startedAtMs) / 1000)),
    ...(memoryBytes === undefined ? {} : { memoryBytes }),
  };
}

/** Whether a server is somebody else's: own ones are used with our credentials. */
export function isExternal(name: PartName, config: Pick<Config, 'nats' | 'redis'>): boolean {
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
