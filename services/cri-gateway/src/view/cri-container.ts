// A container's record as CRI shows it.

import {
  Container,
  ContainerState,
  ContainerStatus,
  ImageSpec,
} from '@cribus/contracts/gen/cri/v1/api.ts';
import {
  ContainerPhase,
  type ContainerRecord,
  type ImageRecord,
} from '@cribus/contracts/gen/node/v1/records.ts';
import { criSignal } from '@cribus/contracts/signals.ts';

/** A sandbox's own process is no container, and one that is still being made has no answer yet. */
export function isContainerShown(record: ContainerRecord): boolean {
  return !record.sandboxProcess && record.phase !== ContainerPhase.CREATING;
}

const STATES: Readonly<Record<ContainerPhase, ContainerState>> = {
  [ContainerPhase.CREATING]: ContainerState.CONTAINER_CREATED,
  [ContainerPhase.CREATED]: ContainerState.CONTAINER_CREATED,
  [ContainerPhase.RUNNING]: ContainerState.CONTAINER_RUNNING,
  [ContainerPhase.EXITED]: ContainerState.CONTAINER_EXITED,
  [ContainerPhase.UNKNOWN]: ContainerState.CONTAINER_UNKNOWN,
  [ContainerPhase.REMOVING]: ContainerState.CONTAINER_EXITED,
};

export function containerState(record: ContainerRecord): ContainerState {
  return STATES[record.phase];
}

/** An item of ListContainers; the image is echoed as the caller named it. */
export function toContainer(record: ContainerRecord): Container {
  return Container.fromPartial({
    id: record.id,
    podSandboxId: record.sandboxId,
    ...(record.config?.metadata === undefined ? {} : { metadata: record.config.metadata }),
    image: record.config?.image ?? {},
    imageRef: record.imageRef || record.imageId,
    state: containerState(record),
    createdAt: record.createdAtNs,
    labels: record.config?.labels ?? {},
    annotations: record.config?.annotations ?? {},
    imageId: record.imageId,
  });
}

/** The status; `image` is what the view knows of its image, for a name that a person would use. */
export function toContainerStatus(
  record: ContainerRecord,
  image: ImageRecord | undefined,
): ContainerStatus {
  const state = containerState(record);
  const exited = state === ContainerState.CONTAINER_EXITED;
  return ContainerStatus.fromPartial({
    id: record.id,
    ...(record.config?.metadata === undefined ? {} : { metadata: record.config.metadata }),
    state,
    createdAt: record.createdAtNs,
    startedAt: record.startedAtNs,
    finishedAt: record.finishedAtNs,
    exitCode: exited ? record.exitCode : 0,
    image: imageSpec(record, image),
    imageRef: record.imageRef || record.imageId,
    reason: exited ? exitReason(record) : record.reason,
    message: record.message,
    labels: record.config?.labels ?? {},
    annotations: record.config?.annotations ?? {},
    mounts: record.mounts,
    logPath: record.logPath,
    resources: record.resources === undefined ? {} : { linux: record.resources },
    imageId: record.imageId,
    ...(record.user === undefined ? {} : { user: record.user }),
    stopSignal: criSignal(record.stopSignal),
  });
}

function exitReason(record: ContainerRecord): string {
  if (record.reason !== '') return record.reason;
  // A container that is removed before it ever ran has no exit to explain.
  if (record.finishedAtNs === 0n) return '';
  return record.exitCode === 0 ? 'Completed' : 'Error';
}

/** The kubelet names an image by id; people want the name they wrote (never empty, cri-client). */
export function imageSpec(record: ContainerRecord, image: ImageRecord | undefined): ImageSpec {
  const asked = record.config?.image;
  const name = asked?.userSpecifiedImage || asked?.image || '';
  const isId = name === record.imageId || /^(sha256:)?[0-9a-f]{6,64}$/.test(name);
  const shown = isId ? (image?.repoTags[0] ?? image?.repoDigests[0] ?? name) : name;
  return ImageSpec.fromPartial({ ...asked, image: shown || record.imageRef || record.imageId });
}
