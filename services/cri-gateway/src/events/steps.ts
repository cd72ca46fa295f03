// Which steps of its life an object has reached, read from its record alone, so that a step is seen
// also when the report of it was missed or several came as one. Pure.

import { ContainerEventType } from '@cribus/contracts/gen/cri/v1/api.ts';
import {
  ContainerPhase,
  type ContainerRecord,
  SandboxPhase,
  type SandboxRecord,
} from '@cribus/contracts/gen/node/v1/records.ts';

export interface Step {
  readonly type: ContainerEventType;
  /** When its owner says it happened, nanoseconds. */
  readonly atNs: bigint;
}

const { CONTAINER_CREATED_EVENT, CONTAINER_STARTED_EVENT, CONTAINER_STOPPED_EVENT } =
  ContainerEventType;

/** In the order of life. A container that could never be started has no STARTED. */
export function stepsOfContainer(record: ContainerRecord): Step[] {
  const { phase, createdAtNs, startedAtNs, finishedAtNs } = record;
  if (phase === ContainerPhase.CREATING || record.sandboxProcess) return [];
  const steps: Step[] = [{ type: CONTAINER_CREATED_EVENT, atNs: createdAtNs }];
  if (startedAtNs > 0n) steps.push({ type: CONTAINER_STARTED_EVENT, atNs: startedAtNs });
  // One that is removed without having run has no end of its own.
  const ended =
    phase === ContainerPhase.EXITED || (phase === ContainerPhase.REMOVING && finishedAtNs > 0n);
  if (ended) steps.push({ type: CONTAINER_STOPPED_EVENT, atNs: finishedAtNs });
  return inOrder(steps);
}

/** A sandbox has started when it was READY once, and has stopped when nothing of it runs. */
export function stepsOfSandbox(record: SandboxRecord): Step[] {
  const { phase, createdAtNs } = record;
  if (phase === SandboxPhase.CREATING) return [];
  const steps: Step[] = [{ type: CONTAINER_CREATED_EVENT, atNs: createdAtNs }];
  // The stamp of its set-up is finished in the write that makes it READY.
  const readyAtNs = record.operation?.finishedAtNs ?? 0n;
  if (phase !== SandboxPhase.READY && readyAtNs === 0n) return steps;
  steps.push({ type: CONTAINER_STARTED_EVENT, atNs: readyAtNs || createdAtNs });
  // While it is being stopped or removed its containers may still be ending.
  if (phase === SandboxPhase.NOTREADY) {
    steps.push({ type: CONTAINER_STOPPED_EVENT, atNs: readyAtNs || createdAtNs });
  }
  return inOrder(steps);
}

/** Clocks are read with different precision: no step is earlier than the one before it. */
function inOrder(steps: readonly Step[]): Step[] {
  let latestNs = 0n;
  return steps.map(({ type, atNs }) => {
    latestNs = atNs > latestNs ? atNs : latestNs;
    return { type, atNs: latestNs };
  });
}
