// The CRI endpoint of the node: gRPC in, messages on the bus out, lists and statuses from a view.

import { randomUUID } from 'node:crypto';
import { runService } from '@cribus/chassis/service.ts';
import { createEventHub } from './events/event-hub.ts';
import type { Gateway } from './gateway.ts';
import { serveCri } from './server.ts';
import { createStatistics } from './stats/statistics.ts';
import { serveStreams } from './streaming/serve-streams.ts';
import { readRecordsOnDisk } from './view/disk.ts';
import { createFeed, type FeedSources } from './view/feed.ts';
import { exportViewMetrics } from './view/metrics.ts';
import { createNodeView } from './view/node-view.ts';
import { createOwners } from './view/owners.ts';

/** Calls that still run when the service is told to end have so long. */
const DRAIN_MS = 3_000;

await runService('cri-gateway', async (service) => {
  const { bus, clock, config, log, mirror } = service;
  const configuredHandlers = Object.keys(config.runtimes.handlers);
  const view = createNodeView(clock);
  const owners = createOwners({ clock, busConnected: () => bus.connected(), configuredHandlers });
  const sources: FeedSources = {
    mirror: (owner, signal) => mirror.read(owner, signal),
    inventory: async (owner, pageToken, signal) => {
      const answer = await bus.ask(
        'inventory',
        { pageToken },
        { owner, signal, requestId: randomUUID() },
      );
      return answer.result;
    },
    disk: (owner, signal) =>
      readRecordsOnDisk({
        roots: config.roots,
        owner,
        signal,
        onUnreadable: (path, error) => log.warn({ path, error }, 'a record could not be read'),
      }),
  };
  const feed = createFeed({
    view,
    owners,
    clock,
    sources,
    log,
    signal: service.stopping,
    configuredHandlers,
    background: service.background,
  });
  bus.subscribe({
    onReport: feed.onReport,
    onOwner: feed.onOwner,
    onReconnect: feed.onReconnect,
    signal: service.stopping,
  });
  service.readiness('view', () => feed.missing().length === 0);
  service.readiness('bus', () => bus.connected());
  exportViewMetrics(view, service.metrics);

  if (config.kubelet.cadvisor_socket !== '') {
    const { serveCadvisor } = await import('./cadvisor/serve-cadvisor.ts');
    await serveCadvisor(service, view);
  }
  const events = createEventHub({ view, clock, metrics: service.metrics });
  const streamUrl = await serveStreams(service, { view, owners });
  const statistics = createStatistics({
    view,
    owners,
    clock,
    stopping: service.stopping,
    background: service.background,
    ask: async (verb, request, options) =>
      (await bus.ask(verb, request, { ...options, requestId: randomUUID() })).result,
    log,
  });
  const known = { view, owners, feed, events, statistics };
  const gateway: Gateway = { config, version: service.version, clock, ...known, streamUrl };
  const [listenFd] = service.listenFds;
  const serving = { gateway, bus, log, metrics: service.metrics };
  const server = await serveCri(serving, listenFd);
  service.onStop('CRI server', () => server.close(clock.timeout(DRAIN_MS)));
  log.info({ socket: config.gateway.socket }, 'CRI is served');
});
