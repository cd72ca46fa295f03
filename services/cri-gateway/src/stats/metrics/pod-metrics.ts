// The metrics of one pod: of its cgroup and network as a whole, and of each of its containers.

import {
  type ContainerMetrics,
  type Metric,
  PodSandboxMetrics,
} from '@cribus/contracts/gen/cri/v1/api.ts';
import type {
  ContainerRecord,
  ImageRecord,
  SandboxRecord,
} from '@cribus/contracts/gen/node/v1/records.ts';
import type { ContainerSample, SandboxSample } from '../samples.ts';
import { FAMILIES } from './descriptors.ts';
import type { Family, Subject } from './family.ts';

export interface PodParts {
  readonly record: SandboxRecord;
  readonly sample: SandboxSample | undefined;
  /** Those that run. */
  readonly containers: readonly {
    readonly record: ContainerRecord;
    readonly sample: ContainerSample | undefined;
    readonly image: ImageRecord | undefined;
  }[];
}

/** Of a pod as a whole cAdvisor has what its cgroup counts, with an empty container. */
const POD_FAMILIES = FAMILIES.filter(({ name }) => !name.startsWith('container_spec_'));

/** The families of a node: all of them, or without the extra ones. */
export interface FamilyChoice {
  readonly pod: readonly Family[];
  readonly container: readonly Family[];
}

export function chooseFamilies(options: { readonly extra: boolean }): FamilyChoice {
  const chosen = (families: readonly Family[]) =>
    options.extra ? families : families.filter(({ extra }) => !extra);
  return { pod: chosen(POD_FAMILIES), container: chosen(FAMILIES) };
}

/** What was sampled with details; a container that was not sampled yet is left out. */
export function podSandboxMetrics(parts: PodParts, families: FamilyChoice): PodSandboxMetrics {
  const { record } = parts;
  const { name: pod = '', namespace = '' } = record.config?.metadata ?? {};
  const usage = parts.sample?.detailed ?? parts.sample?.latest;
  const sampledAtNs = usage?.cgroup?.sampledAtNs ?? usage?.network?.sampledAtNs;
  const metrics: Metric[] =
    usage === undefined || sampledAtNs === undefined
      ? []
      : measure(families.pod, {
          // As in COMMON_LABELS.
          labels: ['', usage.cgroupPath || record.id, '', '', namespace, pod],
          subject: {
            kind: 'pod',
            cgroup: usage.cgroup,
            network: parts.sample?.detailed?.network ?? parts.sample?.latest.network,
            createdAtNs: record.createdAtNs,
            startedAtNs: record.createdAtNs,
            sampledAtNs,
          },
        });
  const containerMetrics = parts.containers.flatMap((one) => {
    const found = containerMetricsOf(one, { pod, namespace, families: families.container });
    return found === undefined ? [] : [found];
  });
  return PodSandboxMetrics.fromPartial({ podSandboxId: record.id, metrics, containerMetrics });
}

function containerMetricsOf(
  { record, sample, image }: PodParts['containers'][number],
  of: { readonly pod: string; readonly namespace: string; readonly families: readonly Family[] },
): ContainerMetrics | undefined {
  const usage = sample?.detailed ?? sample?.latest;
  if (usage?.cgroup === undefined) return undefined;
  const container = record.config?.metadata?.name ?? '';
  const metrics = measure(of.families, {
    labels: [
      container,
      record.cgroupPath || record.id,
      imageName(record, image),
      record.id,
      of.namespace,
      of.pod,
    ],
    subject: {
      kind: 'container',
      cgroup: usage.cgroup,
      processes: usage.processes,
      layer: sample?.latest.writableLayer ?? usage.writableLayer,
      createdAtNs: record.createdAtNs,
      startedAtNs: record.startedAtNs,
      sampledAtNs: usage.cgroup.sampledAtNs,
    },
  });
  return { containerId: record.id, metrics };
}

/** The name that a person gave it; the kubelet asks by id. */
function imageName(record: ContainerRecord, image: ImageRecord | undefined): string {
  const asked = record.config?.image;
  return (
    asked?.userSpecifiedImage ||
    image?.repoTags[0] ||
    image?.repoDigests[0] ||
    asked?.image ||
    record.imageId
  );
}

function measure(
  families: readonly Family[],
  of: { readonly labels: readonly string[]; readonly subject: Subject },
): Metric[] {
  const metrics: Metric[] = [];
  for (const { name, type, values } of families) {
    for (const { value, labels } of values(of.subject)) {
      metrics.push({
        name,
        timestamp: of.subject.sampledAtNs,
        metricType: type,
        labelValues: [...of.labels, ...labels],
        value: { value },
      });
    }
  }
  return metrics;
}
