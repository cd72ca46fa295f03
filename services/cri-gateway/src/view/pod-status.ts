// A sandbox and its containers at one moment, as PodSandboxStatus and container events show them.

import type { ContainerStatus, PodSandboxStatus } from '@cribus/contracts/gen/cri/v1/api.ts';
import type { SandboxRecord } from '@cribus/contracts/gen/node/v1/records.ts';
import { isContainerShown, toContainerStatus } from './cri-container.ts';
import { toPodSandboxStatus } from './cri-sandbox.ts';
import type { NodeView } from './node-view.ts';

export interface PodStatus {
  readonly podSandboxStatus: PodSandboxStatus;
  readonly containersStatuses: ContainerStatus[];
}

export function podStatus(view: NodeView, sandbox: SandboxRecord): PodStatus {
  return {
    podSandboxStatus: toPodSandboxStatus(sandbox),
    containersStatuses: view
      .containersOf(sandbox.id)
      .filter(isContainerShown)
      .map((record) => toContainerStatus(record, view.image(record.imageId))),
  };
}
