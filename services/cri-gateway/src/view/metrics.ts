// Objects of the node by state, counted when they are scraped.

import type { Metrics } from '@cribus/chassis/metrics.ts';
import { ContainerState, PodSandboxState } from '@cribus/contracts/gen/cri/v1/api.ts';
import { containerState } from './cri-container.ts';
import { sandboxState } from './cri-sandbox.ts';
import type { NodeView } from './node-view.ts';

const SANDBOX_STATES: Readonly<Record<PodSandboxState, string>> = {
  [PodSandboxState.SANDBOX_READY]: 'ready',
  [PodSandboxState.SANDBOX_NOTREADY]: 'notready',
};

const CONTAINER_STATES: Readonly<Record<ContainerState, string>> = {
  [ContainerState.CONTAINER_CREATED]: 'created',
  [ContainerState.CONTAINER_RUNNING]: 'running',
  [ContainerState.CONTAINER_EXITED]: 'exited',
  [ContainerState.CONTAINER_UNKNOWN]: 'unknown',
};

export function exportViewMetrics(view: NodeView, metrics: Metrics): void {
  const labels = ['handler', 'state'];
  metrics.gauge('cribus_sandboxes', 'Sandboxes by handler and state.', labels, (gauge) => {
    gauge.reset();
    for (const { record } of view.sandboxes()) {
      gauge.inc({ handler: record.handler, state: SANDBOX_STATES[sandboxState(record)] });
    }
  });
  metrics.gauge('cribus_containers', 'Containers by handler and state.', labels, (gauge) => {
    gauge.reset();
    for (const { record } of view.containers()) {
      gauge.inc({ handler: record.handler, state: CONTAINER_STATES[containerState(record)] });
    }
  });
  metrics.gauge('cribus_images', 'Images known to the node.', [], (gauge) => {
    gauge.set(view.images().length);
  });
}
