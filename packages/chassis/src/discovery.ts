// NATS' micro-service protocol, so that `nats micro ls` and anything else that speaks `$SRV` lists
// every service: PING, INFO and STATS, to all, by name, and by name and id.
// Source: nats-io/nats-architecture-and-design, ADR-32.

import type { Bus, BusMessage } from './bus.ts';

export interface MicroEndpoint {
  readonly name: string;
  readonly subject: string;
  readonly stats: EndpointStats;
}

/** Counted by whoever serves the endpoint. */
export interface EndpointStats {
  requests: number;
  errors: number;
  lastError: string;
  /** Sum over all requests. */
  processingTimeNs: number;
}

export interface MicroService {
  /** One token of a subject; other characters become `-`. */
  readonly name: string;
  /** Unique among all instances of the name. */
  readonly id: string;
  readonly version: string;
  readonly description: string;
  readonly metadata: Readonly<Record<string, string>>;
  readonly endpoints: readonly MicroEndpoint[];
  /** When it started, nanoseconds since 1970. */
  readonly startedAtNs: bigint;
}

/** Statistics of an endpoint that has not been asked yet. */
export function createEndpointStats(): EndpointStats {
  return { requests: 0, errors: 0, lastError: '', processingTimeNs: 0 };
}

/** Answers discovery for one service until closed. */
export function registerMicroService(bus: Bus, service: MicroService): { close(): void } {
  const name = service.name.replaceAll(/[^A-Za-z0-9_-]/g, '-');
  const identity = {
    name,
    id: service.id,
    version: service.version,
    metadata: service.metadata,
  };
  const answers = {
    PING: () => ({ type: 'io.nats.micro.v1.ping_response', ...identity }),
    INFO: () => ({
      type: 'io.nats.micro.v1.info_response',
      ...identity,
      description: service.description,
      endpoints: service.endpoints.map((endpoint) => ({
        name: endpoint.name,
        subject: endpoint.subject,
        queue_group: '',
        metadata: {},
      })),
    }),
    STATS: () => ({
      type: 'io.nats.micro.v1.stats_response',
      ...identity,
      started: new Date(Number(service.startedAtNs / 1_000_000n)).toISOString(),
      endpoints: service.endpoints.map(statsOf),
    }),
  };
  const open = Object.entries(answers).flatMap(([verb, answer]) => {
    const onMessage = (message: BusMessage) =>
      message.respond(Buffer.from(JSON.stringify(answer())));
    return [`$SRV.${verb}`, `$SRV.${verb}.${name}`, `$SRV.${verb}.${name}.${service.id}`].map(
      (subject) => bus.serve(subject, onMessage),
    );
  });
  return {
    close() {
      for (const one of open) one.close();
    },
  };
}

function statsOf({ name, subject, stats }: MicroEndpoint): object {
  const averageNs = stats.requests === 0 ? 0 : stats.processingTimeNs / stats.requests;
  return {
    name,
    subject,
    queue_group: '',
    num_requests: stats.requests,
    num_errors: stats.errors,
    last_error: stats.lastError,
    processing_time: Math.round(stats.processingTimeNs),
    average_processing_time: Math.round(averageNs),
  };
}
