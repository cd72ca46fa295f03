// Where the services of a stack serve their metrics, in one line for people.

import type { Config } from '@cribus/chassis/config.ts';
import { SERVICES } from './services.ts';

/** A shell, and curl itself, expand the braces. */
export function metricsAddresses(config: Config): string {
  const { address, ports } = config.metrics;
  const host = address.includes(':') ? `[${address}]` : address;
  return `http://${host}:{${SERVICES.map((name) => ports[name]).join(',')}}/metrics`;
}
