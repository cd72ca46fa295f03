// One registry per service; names and labels of all of them are in docs/reference/metrics.md.

import type { Counter, Gauge, Histogram, Registry } from 'prom-client';

export interface Metrics {
  readonly registry: Registry;
  counter(name: string, help: string, labels: readonly string[]): Counter;
  gauge(
    name: string,
    help: string,
    labels: readonly string[],
    collect?: (gauge: Gauge) => void,
  ): Gauge;
  /** Buckets in seconds. */
  histogram(
    name: string,
    help: string,
    labels: readonly string[],
    buckets?: readonly number[],
  ): Histogram;
  /** Times an operation of the host (engine command, CNI call): cribus_operation_seconds{kind,operation,outcome}, with a span. */
  timed<T>(
    kind: 'engine' | 'cni' | 'registry' | 'mount',
    operation: string,
    work: () => Promise<T>,
  ): Promise<T>;
}
