// Containers, pods and images as `crictl ps`, `crictl pods` and `crictl images` print them. Pure.

import * as cri from '@cribus/contracts/gen/cri/v1/api.ts';
import { size, table } from './table.ts';

/** crictl shows 13 digits of an id. */
const ID_LENGTH = 13;
/** Columns that would say nothing if they were cut. */
const WHOLE = ['CONTAINER', 'POD ID', 'IMAGE ID', 'CREATED', 'STATE', 'SIZE'];

/** Newest first. `pods` gives the names; `nowNs` is the wall clock. */
export function containerTable(
  containers: readonly cri.Container[],
  pods: readonly cri.PodSandbox[],
  nowNs: bigint,
): string[] {
  const podById = new Map(pods.map((pod) => [pod.id, pod]));
  const rows = newestFirst(containers).map((container) => {
    const pod = podById.get(container.podSandboxId)?.metadata;
    return [
      shortId(container.id),
      imageName(container.image?.userSpecifiedImage || container.image?.image || ''),
      ago(container.createdAt, nowNs),
      CONTAINER_STATE[container.state] ?? 'Unknown',
      container.metadata?.name ?? '',
      String(container.metadata?.attempt ?? 0),
      shortId(container.podSandboxId),
      pod?.name ?? 'unknown',
    ];
  });
  const head = ['CONTAINER', 'IMAGE', 'CREATED', 'STATE', 'NAME', 'ATTEMPT', 'POD ID', 'POD'];
  return table(head, rows, WHOLE);
}

/** Newest first. */
export function podTable(pods: readonly cri.PodSandbox[], nowNs: bigint): string[] {
  const rows = newestFirst(pods).map((pod) => [
    shortId(pod.id),
    ago(pod.createdAt, nowNs),
    pod.state === cri.PodSandboxState.SANDBOX_READY ? 'Ready' : 'NotReady',
    pod.metadata?.name ?? '',
    pod.metadata?.namespace ?? '',
    String(pod.metadata?.attempt ?? 0),
    pod.runtimeHandler === '' ? '(default)' : pod.runtimeHandler,
  ]);
  return table(
    ['POD ID', 'CREATED', 'STATE', 'NAME', 'NAMESPACE', 'ATTEMPT', 'RUNTIME'],
    rows,
    WHOLE,
  );
}

/** One row for each tag, by name; an image without one has a row of its own. */
export function imageTable(images: readonly cri.Image[]): string[] {
  const rows = images.flatMap((image) => {
    const names =
      image.repoTags.length > 0
        ? image.repoTags.map(splitTag)
        : [[image.repoDigests[0]?.split('@')[0] ?? '<none>', '<none>']];
    return names.map((name) => [
      ...name,
      shortId(image.id.replace(/^sha256:/, '')),
      size(image.size),
    ]);
  });
  rows.sort((one, other) => compare(one.join('\0'), other.join('\0')));
  return table(['IMAGE', 'TAG', 'IMAGE ID', 'SIZE'], rows, WHOLE);
}

const CONTAINER_STATE: Readonly<Record<number, string>> = {
  [cri.ContainerState.CONTAINER_CREATED]: 'Created',
  [cri.ContainerState.CONTAINER_RUNNING]: 'Running',
  [cri.ContainerState.CONTAINER_EXITED]: 'Exited',
  [cri.ContainerState.CONTAINER_UNKNOWN]: 'Unknown',
};

function newestFirst<T extends { readonly createdAt: bigint }>(rows: readonly T[]): T[] {
  return [...rows].sort((one, other) => Number(other.createdAt - one.createdAt));
}

function compare(one: string, other: string): number {
  if (one === other) return 0;
  return one < other ? -1 : 1;
}

function shortId(id: string): string {
  return id.slice(0, ID_LENGTH);
}

/** An image given by its id is shortened as crictl does; a name is left as it is. */
function imageName(image: string): string {
  return /^sha256:[0-9a-f]{64}$/.test(image) ? shortId(image.slice('sha256:'.length)) : image;
}

/** The last colon after the last slash begins the tag. */
function splitTag(name: string): string[] {
  const colon = name.lastIndexOf(':');
  return colon > name.lastIndexOf('/') ? [name.slice(0, colon), name.slice(colon + 1)] : [name, ''];
}

const UNITS = [
  { name: 'day', seconds: 86_400 },
  { name: 'hour', seconds: 3_600 },
  { name: 'minute', seconds: 60 },
  { name: 'second', seconds: 1 },
] as const;

/** As in `3 minutes ago`. */
export function ago(thenNs: bigint, nowNs: bigint): string {
  const seconds = Math.max(0, Number((nowNs - thenNs) / 1_000_000_000n));
  const unit = UNITS.find((row) => seconds >= row.seconds) ?? UNITS[3];
  const count = Math.floor(seconds / unit.seconds);
  return count === 0 ? 'just now' : `${count} ${unit.name}${count === 1 ? '' : 's'} ago`;
}
