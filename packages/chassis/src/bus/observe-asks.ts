// What a service asks of owners, counted and timed where it waits: an owner that nobody can reach has
// no metrics of its own to tell it.

import { isFailure } from '@cribus/contracts/failure.ts';
import type { RequestOf, VerbName } from '@cribus/contracts/subjects.ts';
import type { Clock } from '@cribus/host/clock.ts';
import type { AskOptions, Bus } from '../bus.ts';
import type { Metrics } from '../metrics.ts';

/** The same bus, whose questions are measured. */
export function observeAsks<B extends Bus>(
  bus: B,
  options: { readonly metrics: Metrics; readonly clock: Clock },
): B {
  const { metrics, clock } = options;
  const requests = metrics.counter(
    'cribus_bus_requests_total',
    'Questions to owners over NATS, by how they ended for the asker: ok, or the kind of failure.',
    ['owner', 'verb', 'outcome'],
  );
  const seconds = metrics.histogram(
    'cribus_bus_seconds',
    'From a question to its answer over NATS, asking again included.',
    ['owner', 'verb'],
  );
  const ask = async <V extends VerbName>(verb: V, request: RequestOf<V>, ask: AskOptions) => {
    const labels = { owner: ask.owner, verb };
    const startedMs = clock.monotonicMs();
    const end = (outcome: string) => {
      requests.inc({ ...labels, outcome });
      seconds.observe(labels, (clock.monotonicMs() - startedMs) / 1_000);
    };
    try {
      const answer = await bus.ask(verb, request, ask);
      end('ok');
      return answer;
    } catch (error) {
      end(outcomeOf(error));
      throw error;
    }
  };
  return { ...bus, ask };
}

function outcomeOf(error: unknown): string {
  if (isFailure(error)) return error.kind;
  return error instanceof Error && error.name === 'TimeoutError' ? 'timeout' : 'cancelled';
}
