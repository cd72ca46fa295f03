// The streams of a gateway, wired.

import type { Service } from '@cribus/chassis/service.ts';
import type { Gateway } from '../gateway.ts';
import { createSessions } from './open-session.ts';
import { createStreamJournal } from './stream-journal.ts';
import { startStreamingServer } from './streaming-server.ts';

/** For a client to open its streams (cri-streaming, DefaultStreamCreationTimeout). */
const CREATION_MS = 30_000;

/** Serves streams until the service ends; raises wrong_state when its address can't be had. */
export async function serveStreams(
  service: Service,
  known: Pick<Gateway, 'view' | 'owners'>,
): Promise<Gateway['streamUrl']> {
  const { bus, clock, config, log, metrics, stopping } = service;
  const server = await startStreamingServer({
    clock,
    log,
    stopping,
    address: config.gateway.streaming_address,
    port: config.gateway.streaming_port,
    idleMs: config.gateway.streaming_idle_timeout_s * 1_000,
    creationMs: CREATION_MS,
    sessions: createSessions({ ...known, clock }, bus),
    journal: createStreamJournal({ log, metrics, clock }),
  });
  service.onStop('streaming server', () => server.close());
  return server.urlFor;
}
