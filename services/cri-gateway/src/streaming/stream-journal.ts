// What is counted and logged of streams.

import type { Logger } from '@cribus/chassis/log.ts';
import type { Metrics } from '@cribus/chassis/metrics.ts';
import type { Clock } from '@cribus/host/clock.ts';
import type { StreamAsk } from './ask.ts';
import type { SessionOutcome } from './session-link.ts';

export interface StreamEntry {
  readonly count: (direction: 'in' | 'out', bytes: number) => void;
  /** Once, at the end. */
  end(outcome: SessionOutcome): void;
}

export interface StreamJournal {
  /** One session of a worker begins. */
  begin(ask: StreamAsk, fields: Readonly<Record<string, string | number>>): StreamEntry;
}

export function createStreamJournal(options: {
  readonly log: Logger;
  readonly metrics: Metrics;
  readonly clock: Clock;
}): StreamJournal {
  const { log, metrics, clock } = options;
  const open = metrics.gauge(
    'cribus_streams_open',
    'Streams of exec and attach and forwarded connections that are open.',
    ['kind'],
  );
  const bytes = metrics.counter(
    'cribus_stream_bytes_total',
    'Bytes carried by streams, in to the pod and out of it.',
    ['kind', 'direction'],
  );
  for (const kind of ['exec', 'attach', 'port-forward']) {
    open.set({ kind }, 0);
    for (const direction of ['in', 'out']) bytes.inc({ kind, direction }, 0);
  }
  return {
    begin(ask, fields) {
      const { kind } = ask;
      const startedMs = clock.monotonicMs();
      const counted = { in: 0, out: 0 };
      const counters = {
        in: bytes.labels({ kind, direction: 'in' }),
        out: bytes.labels({ kind, direction: 'out' }),
      };
      open.inc({ kind });
      return {
        count(direction, carried) {
          counted[direction] += carried;
          counters[direction].inc(carried);
        },
        end(outcome) {
          open.dec({ kind });
          log.info(
            {
              request_id: ask.requestId,
              kind,
              ...(ask.kind === 'port-forward'
                ? { sandbox_id: ask.sandboxId }
                : { container_id: ask.containerId }),
              ...fields,
              ms: Math.round(clock.monotonicMs() - startedMs),
              bytes_in: counted.in,
              bytes_out: counted.out,
              ...(outcome.kind === 'exit'
                ? { exit_code: outcome.exit.exitCode }
                : { error: outcome.failure }),
            },
            'a stream ended',
          );
        },
      };
    },
  };
}
