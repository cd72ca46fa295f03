// What happens behind the calls: the bus, the engines, plugins and registries, and the services.

import { graph, type Row, timeline } from './panels.ts';
import { CHOSEN, latencies, NODE, rate } from './queries.ts';

export function bus(): Row {
  return {
    title: 'Bus',
    panels: [
      graph({
        title: 'Operations by owner',
        description: 'Verbs that owners finish for the gateway and for one another.',
        unit: 'ops',
        width: 8,
        queries: [
          {
            expr: rate('cribus_verb_requests_total', CHOSEN, ['owner', 'verb']),
            legend: '{{owner}} {{verb}}',
          },
        ],
      }),
      graph({
        title: 'Failed operations by kind',
        description: 'Verbs that ended in a failure, by its kind.',
        whenEmpty: 'no failures',
        unit: 'ops',
        width: 8,
        queries: [
          {
            expr: rate('cribus_verb_requests_total', `${CHOSEN}, kind!="ok"`, [
              'owner',
              'verb',
              'kind',
            ]),
            legend: '{{owner}} {{verb}} {{kind}}',
          },
        ],
      }),
      graph({
        title: 'Duration at the owner',
        description: 'How long an owner takes for a verb, without the way to it.',
        unit: 's',
        width: 8,
        queries: latencies('cribus_verb_seconds', CHOSEN, ['owner', 'verb']),
      }),
      graph({
        title: 'Duration for the asker',
        description:
          'From the question to the answer over NATS, asking again included. Far above the duration ' +
          'at the owner, the bus or the asker is slow.',
        unit: 's',
        width: 8,
        queries: latencies('cribus_bus_seconds', CHOSEN, ['service', 'owner']),
      }),
      graph({
        title: 'Questions by outcome',
        description: 'How questions end for their asker; unavailable: nobody answered.',
        unit: 'ops',
        width: 8,
        queries: [
          {
            expr: rate('cribus_bus_requests_total', CHOSEN, ['service', 'owner', 'outcome']),
            legend: '{{service}} → {{owner}} {{outcome}}',
          },
        ],
      }),
      timeline({
        title: 'Connections',
        description: 'Whether each service is connected to NATS and to Redis.',
        width: 8,
        yes: 'connected',
        no: 'lost',
        queries: [
          {
            expr: `min by (node, service, to) (cribus_connected{${CHOSEN}})`,
            legend: '{{node}} {{service}} → {{to}}',
          },
        ],
      }),
    ],
  };
}

export function host(): Row {
  return {
    title: 'Engines and networks',
    panels: [
      graph({
        title: 'Engine operations, duration',
        description: 'Commands of runc, crun and runsc, by family and operation.',
        unit: 's',
        width: 12,
        queries: latencies('cribus_operation_seconds', `${CHOSEN}, kind="engine"`, ['operation']),
      }),
      graph({
        title: 'CNI operations, duration',
        description: 'Plugins by command and type.',
        unit: 's',
        width: 12,
        queries: latencies('cribus_operation_seconds', `${CHOSEN}, kind="cni"`, ['operation']),
      }),
      graph({
        title: 'Mounts, duration',
        description: "Overlays of containers' root filesystems.",
        unit: 's',
        width: 8,
        queries: latencies('cribus_operation_seconds', `${CHOSEN}, kind="mount"`, ['operation']),
      }),
      graph({
        title: 'Operations on the host',
        description: 'Commands, plugin calls and mounts by outcome.',
        unit: 'ops',
        width: 8,
        queries: [
          {
            expr: rate('cribus_operation_seconds_count', CHOSEN, ['kind', 'outcome']),
            legend: '{{kind}} {{outcome}}',
          },
        ],
      }),
      graph({
        title: 'Failed operations on the host',
        description: 'Which command or plugin failed; the log of its service has what it said.',
        whenEmpty: 'no failures',
        unit: 'ops',
        width: 8,
        queries: [
          {
            expr: rate('cribus_operation_seconds_count', `${CHOSEN}, outcome="error"`, [
              'kind',
              'operation',
            ]),
            legend: '{{kind}} {{operation}}',
          },
        ],
      }),
    ],
  };
}

export function pulls(): Row {
  return {
    title: 'Image pulls',
    panels: [
      graph({
        title: 'Pulls by outcome',
        description: 'Pulls that ended.',
        unit: 'ops',
        width: 8,
        queries: [{ expr: rate('cribus_pulls_total', NODE, ['outcome']), legend: '{{outcome}}' }],
      }),
      graph({
        title: 'Failed pulls',
        description: 'Pulls that failed, by the kind of the failure.',
        whenEmpty: 'no failures',
        unit: 'ops',
        width: 8,
        queries: [
          {
            expr: rate('cribus_pulls_total', `${NODE}, outcome!="success"`, ['outcome']),
            legend: '{{outcome}}',
          },
        ],
      }),
      graph({
        title: 'Pull duration',
        description: 'From the request to the last layer in place.',
        unit: 's',
        width: 8,
        queries: latencies('cribus_pull_seconds', NODE, ['outcome']),
      }),
      graph({
        title: 'Received from registries',
        description: 'Compressed bytes of layers.',
        unit: 'Bps',
        width: 8,
        queries: [{ expr: rate('cribus_pull_bytes_total', NODE, ['node']), legend: '{{node}}' }],
      }),
      graph({
        title: 'Pulls in flight',
        description: 'Pulls that run.',
        unit: 'short',
        width: 8,
        decimals: 0,
        queries: [{ expr: `sum by (node) (cribus_pulls_in_flight{${NODE}})`, legend: '{{node}}' }],
      }),
      graph({
        title: 'Images',
        description: 'Images that the node has.',
        unit: 'short',
        width: 8,
        decimals: 0,
        queries: [{ expr: `sum by (node) (cribus_images{${NODE}})`, legend: '{{node}}' }],
      }),
    ],
  };
}

export function services(): Row {
  return {
    title: 'Services',
    panels: [
      timeline({
        title: 'Services up',
        description: 'Whether each service answers its scrape.',
        width: 12,
        yes: 'up',
        no: 'down',
        queries: [
          {
            expr: `min by (node, service) (up{job="cribus", ${CHOSEN}})`,
            legend: '{{node}} {{service}}',
          },
        ],
      }),
      graph({
        title: 'Memory by service',
        description: 'Resident memory; pages that services share are counted in each.',
        unit: 'bytes',
        width: 12,
        stacked: true,
        queries: [
          {
            expr: `sum by (node, service) (process_resident_memory_bytes{${CHOSEN}})`,
            legend: '{{node}} {{service}}',
          },
        ],
      }),
      graph({
        title: 'CPU by service',
        description: 'Cores in use; 1 is one whole core.',
        unit: 'short',
        width: 8,
        queries: [
          {
            expr: rate('process_cpu_seconds_total', CHOSEN, ['node', 'service']),
            legend: '{{node}} {{service}}',
          },
        ],
      }),
      graph({
        title: 'Event loop lag p99',
        description: 'How late a service comes to what is ready; it answers nobody in that time.',
        unit: 's',
        width: 8,
        queries: [
          {
            expr: `max by (node, service) (nodejs_eventloop_lag_p99_seconds{${CHOSEN}})`,
            legend: '{{node}} {{service}}',
          },
        ],
      }),
      graph({
        title: 'Restarts',
        description: 'How often each service started anew within the last hour.',
        unit: 'short',
        width: 8,
        decimals: 0,
        queries: [
          {
            expr: `sum by (node, service) (changes(process_start_time_seconds{${CHOSEN}}[1h]))`,
            legend: '{{node}} {{service}}',
          },
        ],
      }),
    ],
  };
}
