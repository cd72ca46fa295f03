// The sandboxes that containers outlive in the view: an event of a container always carries the
// status of its sandbox, or the kubelet drops it.

import {
  type ContainerRecord,
  SandboxPhase,
  SandboxRecord,
} from '@cribus/contracts/gen/node/v1/records.ts';
import type { NodeView, ViewChange } from '../view/node-view.ts';

/** A sandbox is gone before its containers for moments only; the oldest go first. */
const REMEMBERED_MAX = 1_000;

export interface SandboxMemory {
  note(change: ViewChange): void;
  /** The sandbox as it is, as it last was, or, where it was never seen, as its container tells. */
  sandboxOf(container: ContainerRecord): SandboxRecord;
}

export function lastKnownSandboxes(view: NodeView): SandboxMemory {
  const gone = new Map<string, SandboxRecord>();
  return {
    note(change) {
      if (change.kind === 'sandbox') {
        gone.delete(change.id);
        if (change.after !== undefined || view.containersOf(change.id).length === 0) return;
        gone.set(
          change.id,
          SandboxRecord.fromPartial({ ...change.before, phase: SandboxPhase.NOTREADY }),
        );
        const [oldest] = gone.keys();
        if (gone.size > REMEMBERED_MAX && oldest !== undefined) gone.delete(oldest);
      }
    },
    sandboxOf(container) {
      const { sandboxId } = container;
      return view.sandbox(sandboxId) ?? gone.get(sandboxId) ?? fromContainer(container);
    },
  };
}

/** The kubelet's own labels tell the uid of a pod (its package types). */
function fromContainer(container: ContainerRecord): SandboxRecord {
  return SandboxRecord.fromPartial({
    id: container.sandboxId,
    handler: container.handler,
    phase: SandboxPhase.NOTREADY,
    createdAtNs: container.createdAtNs,
    config: {
      metadata: {
        name: container.podName,
        namespace: container.podNamespace,
        uid: container.config?.labels['io.kubernetes.pod.uid'] ?? '',
      },
    },
  });
}
