// One registry per service; names and labels of all of them are in docs/reference/metrics.md.

import { Counter, collectDefaultMetrics, Gauge, Histogram, Registry } from 'prom-client';
import { withSpan } from './tracing.ts';

export interface Metrics {
  readonly registry: Registry;
  counter(name: string, help: string, labels: readonly string[]): Counter;
  /** `collect` sets it at each scrape; each of several that ask for one name sets its own labels. */
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

/** From a mount's 200 µs to a slow pull's minute; in seconds. */
const BUCKETS_S = [0.0005, 0.002, 0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 60];

/**
 * Makes a service's metrics, with the process' own beside them; every one carries `service`. A
 * second request for a name answers the first metric again, as one process may have several owners.
 */
export function createMetrics(service: string): Metrics {
  const registry = new Registry();
  registry.setDefaultLabels({ service });
  collectDefaultMetrics({ register: registry });
  const registers = [registry];
  const known = new Map<string, Counter | Gauge | Histogram>();
  const collectors = new Map<string, ((gauge: Gauge) => void)[]>();
  const once = <M extends Counter | Gauge | Histogram>(name: string, make: () => M): M => {
    const made = known.get(name) ?? make();
    known.set(name, made);
    return made as M;
  };
  const metrics: Metrics = {
    registry,
    counter: (name, help, labelNames) =>
      once(name, () => new Counter({ name, help, labelNames, registers })),
    gauge(name, help, labelNames, collect) {
      const collecting = collectors.get(name) ?? [];
      collectors.set(name, collecting);
      if (collect !== undefined) collecting.push(collect);
      return once(name, () => {
        const collectAll = () => {
          for (const one of collecting) one(gauge);
        };
        const gauge: Gauge = new Gauge({ name, help, labelNames, registers, collect: collectAll });
        return gauge;
      });
    },
    histogram: (name, help, labelNames, buckets = BUCKETS_S) =>
      once(name, () => new Histogram({ name, help, labelNames, registers, buckets: [...buckets] })),
    timed(kind, operation, work) {
      return timedOperation(seconds, { kind, operation }, work);
    },
  };
  const seconds = metrics.histogram(
    'cribus_operation_seconds',
    'Duration of an operation outside us: an engine command, a CNI call, a mount, a registry request.',
    ['kind', 'operation', 'outcome'],
  );
  return metrics;
}

async function timedOperation<T>(
  seconds: Histogram,
  labels: { readonly kind: string; readonly operation: string },
  work: () => Promise<T>,
): Promise<T> {
  const stop = seconds.startTimer(labels);
  try {
    const result = await withSpan(
      `${labels.kind} ${labels.operation}`,
      { kind: 'internal', attributes: labels },
      work,
    );
    stop({ outcome: 'ok' });
    return result;
  } catch (error) {
    stop({ outcome: 'error' });
    throw error;
  }
}
