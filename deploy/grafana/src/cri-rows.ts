// What the kubelet sees of a node: pods, containers, and its own calls.

import { graph, type Row, stat } from './panels.ts';
import { CHOSEN, NODE, quantile, rate, VIEW } from './queries.ts';

export function overview(): Row {
  return {
    title: 'Overview',
    panels: [
      stat({
        title: 'Services up',
        description: 'Share of the chosen services that answer their scrape.',
        unit: 'percentunit',
        width: 4,
        decimals: 0,
        goodFrom: 1,
        queries: [{ expr: `avg(up{job="cribus", ${CHOSEN}})`, legend: 'up' }],
      }),
      stat({
        title: 'Pods ready',
        description: 'Sandboxes in state READY, as List answers them.',
        unit: 'short',
        width: 4,
        queries: [{ expr: `sum(cribus_sandboxes{${VIEW}, state="ready"})`, legend: 'ready' }],
      }),
      stat({
        title: 'Containers running',
        description: 'Containers in state RUNNING, as List answers them.',
        unit: 'short',
        width: 4,
        queries: [{ expr: `sum(cribus_containers{${VIEW}, state="running"})`, legend: 'running' }],
      }),
      stat({
        title: 'CRI calls',
        description: 'Calls that the gateway answers each second.',
        unit: 'reqps',
        width: 4,
        decimals: 1,
        queries: [
          {
            expr: `sum(rate(cribus_cri_requests_total{${NODE}}[$__rate_interval]))`,
            legend: 'calls',
          },
        ],
      }),
      stat({
        title: 'CRI errors',
        description:
          'Share of calls that answered another code than OK. NOT_FOUND is part of a healthy ' +
          "kubelet's day; a rise is not.",
        unit: 'percentunit',
        width: 4,
        decimals: 1,
        warnFrom: 0.05,
        badFrom: 0.25,
        queries: [
          {
            // Not a quotient of errors: those have no series before the first one.
            expr:
              `1 - sum(rate(cribus_cri_requests_total{${NODE}, code="OK"}[$__rate_interval])) / ` +
              `sum(rate(cribus_cri_requests_total{${NODE}}[$__rate_interval]))`,
            legend: 'errors',
          },
        ],
      }),
      stat({
        title: 'Bugs',
        description:
          'Errors that nobody foresaw, since the services started. Each is logged with the incident ' +
          'id that its caller was told.',
        unit: 'short',
        width: 4,
        curve: false,
        badFrom: 1,
        queries: [{ expr: `sum(cribus_bugs_total{${NODE}})`, legend: 'bugs' }],
      }),
    ],
  };
}

export function pods(): Row {
  return {
    title: 'Pods and containers',
    panels: [
      graph({
        title: 'Pods by RuntimeClass handler',
        description: 'Sandboxes by handler and state, as the gateway answers them.',
        unit: 'short',
        width: 8,
        decimals: 0,
        stacked: true,
        queries: [
          {
            expr: `sum by (handler, state) (cribus_sandboxes{${VIEW}})`,
            legend: '{{handler}} {{state}}',
          },
        ],
      }),
      graph({
        title: 'Containers by RuntimeClass handler',
        description: 'Containers by handler and state, as the gateway answers them.',
        unit: 'short',
        width: 8,
        decimals: 0,
        stacked: true,
        queries: [
          {
            expr: `sum by (handler, state) (cribus_containers{${VIEW}})`,
            legend: '{{handler}} {{state}}',
          },
        ],
      }),
      graph({
        title: 'Objects by state',
        description:
          "What each owner has on disk, transitional states included. Differences to the gateway's " +
          'view last a moment; one that stays is a fault.',
        unit: 'short',
        width: 8,
        decimals: 0,
        queries: [
          {
            expr: `sum by (state) (cribus_sandboxes{${NODE}, service="sandbox-manager"})`,
            legend: 'sandbox {{state}}',
          },
          {
            expr: `sum by (state) (cribus_containers{${NODE}, service=~"runtime-.*"})`,
            legend: 'container {{state}}',
          },
          {
            expr: `sum by (kind, state) (cribus_objects{${NODE}})`,
            legend: '{{kind}} {{state}}',
          },
        ],
      }),
    ],
  };
}

export function calls(): Row {
  return {
    title: 'CRI calls',
    panels: [
      graph({
        title: 'Rate by verb',
        description: 'Calls that the gateway answers.',
        unit: 'reqps',
        width: 12,
        queries: [{ expr: rate('cribus_cri_requests_total', NODE, ['verb']), legend: '{{verb}}' }],
      }),
      graph({
        title: 'Errors by verb and code',
        description:
          "Calls that answered a gRPC code other than OK; the log has each one's reason.",
        whenEmpty: 'no errors',
        unit: 'reqps',
        width: 12,
        queries: [
          {
            expr: rate('cribus_cri_requests_total', `${NODE}, code!="OK"`, ['verb', 'code']),
            legend: '{{verb}} {{code}}',
          },
        ],
      }),
      graph({
        title: 'Latency p50 by verb',
        description: 'Half of the calls are answered faster.',
        unit: 's',
        width: 8,
        queries: [
          { expr: quantile(0.5, 'cribus_cri_seconds', NODE, ['verb']), legend: '{{verb}}' },
        ],
      }),
      graph({
        title: 'Latency p99 by verb',
        description:
          'One call of a hundred takes longer. PullImage and ExecSync take what they need.',
        unit: 's',
        width: 8,
        queries: [
          { expr: quantile(0.99, 'cribus_cri_seconds', NODE, ['verb']), legend: '{{verb}}' },
        ],
      }),
      graph({
        title: 'Calls in flight',
        description: 'Calls that are being worked on. One that only grows is stuck.',
        unit: 'short',
        width: 8,
        decimals: 0,
        queries: [{ expr: `sum by (verb) (cribus_cri_in_flight{${NODE}})`, legend: '{{verb}}' }],
      }),
    ],
  };
}
