// What every service is: configuration read once, logs, metrics and health over HTTP, the bus, Redis,
// traces where they are asked for, and an orderly end.

import type { Clock } from '@cribus/host/clock.ts';
import type { Bus } from './bus.ts';
import type { Config } from './config.ts';
import type { Logger } from './log.ts';
import type { Metrics } from './metrics.ts';
import type { StateMirror } from './mirror.ts';

export type ServiceName =
  | 'cri-gateway'
  | 'image-service'
  | 'sandbox-manager'
  | 'runtime-runc'
  | 'runtime-gvisor';

export interface Service {
  readonly name: ServiceName;
  readonly version: string;
  /** New at each start. */
  readonly instanceId: string;
  readonly config: Config;
  readonly clock: Clock;
  readonly log: Logger;
  readonly bus: Bus;
  readonly mirror: StateMirror;
  readonly metrics: Metrics;
  /** Aborts when the service is told to end. */
  readonly stopping: AbortSignal;
  /** Part of /readyz: every named check must be true. */
  readiness(name: string, check: () => boolean): void;
  /** Runs at the end, last registered first, each with at most ten seconds. */
  onStop(step: string, work: () => Promise<void> | void): void;
  /** A loop of the service's own: a rejection is logged as a bug and ends the service. */
  background(name: string, work: Promise<unknown>): void;
}

/**
 * Starts a service from `--config FILE` (and `--root DIR`) in process.argv: runs `start`, then serves until SIGTERM or
 * SIGINT, then drains and exits 0. A failure to start is one clear line on stderr and exit code 1.
 */
export async function runService(
  _name: ServiceName,
  _start: (service: Service) => Promise<void>,
): Promise<void> {
  throw new Error('not built');
}
