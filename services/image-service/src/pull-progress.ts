// How far a pull is: a line in the log every ten seconds, and metrics.

import type { Metrics } from '@cribus/chassis/metrics.ts';
import type { Service } from '@cribus/chassis/service.ts';
import { isFailure } from '@cribus/contracts/failure.ts';

export interface PullMetrics {
  expected(bytes: number): void;
  received(bytes: number): void;
  begun(): void;
  ended(outcome: string, seconds: number): void;
}

export interface PullProgress {
  /** A layer of this size is fetched, rather than found. */
  expect(bytes: number): void;
  received(bytes: number): void;
  succeeded(imageId: string): void;
  failed(error: unknown): void;
}

const LOG_INTERVAL_MS = 10_000;

/** Registers the metrics of pulls. */
export function createPullMetrics(metrics: Metrics): PullMetrics {
  const bytes = metrics.counter(
    'cribus_pull_bytes_total',
    'Compressed bytes of layers received.',
    [],
  );
  const expectedBytes = metrics.counter(
    'cribus_pull_expected_bytes_total',
    'Compressed bytes of layers that pulls set out to fetch.',
    [],
  );
  const pulls = metrics.counter('cribus_pulls_total', 'Pulls ended, by outcome.', ['outcome']);
  const inFlight = metrics.gauge('cribus_pulls_in_flight', 'Pulls that run.', []);
  const seconds = metrics.histogram(
    'cribus_pull_seconds',
    'Duration of pulls, by outcome.',
    ['outcome'],
    [0.1, 0.3, 1, 3, 10, 30, 100, 300, 1000],
  );
  return {
    expected: (count) => expectedBytes.inc(count),
    received: (count) => bytes.inc(count),
    begun: () => inFlight.inc(),
    ended(outcome, duration) {
      inFlight.dec();
      pulls.inc({ outcome });
      seconds.observe({ outcome }, duration);
    },
  };
}

/** Follows one pull until it succeeded or failed. */
export function watchProgress(service: Service, metrics: PullMetrics, image: string): PullProgress {
  const { clock, log } = service;
  const startedMs = clock.monotonicMs();
  const over = new AbortController();
  let receivedBytes = 0;
  let expectedBytes = 0;
  metrics.begun();
  const elapsedSeconds = () => (clock.monotonicMs() - startedMs) / 1000;
  const fields = () => ({ image, receivedBytes, expectedBytes, seconds: elapsedSeconds() });
  const report = async () => {
    for (;;) {
      await clock.sleep(LOG_INTERVAL_MS, over.signal);
      log.info(fields(), 'Pulling.');
    }
  };
  report().catch(() => {});
  const end = (outcome: string) => {
    over.abort();
    metrics.ended(outcome, elapsedSeconds());
  };
  return {
    expect(bytes) {
      expectedBytes += bytes;
      metrics.expected(bytes);
    },
    received(bytes) {
      receivedBytes += bytes;
      metrics.received(bytes);
    },
    succeeded(imageId) {
      end('success');
      log.info({ ...fields(), imageId }, 'Pulled.');
    },
    failed(error) {
      end(isFailure(error) ? error.kind : 'bug');
      log.warn({ ...fields(), failure: (error as Error).message }, 'The pull failed.');
    },
  };
}
