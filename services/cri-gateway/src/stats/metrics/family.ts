// A family of metrics as cAdvisor names it, and how its values follow from what was sampled.

import { MetricType } from '@cribus/contracts/gen/cri/v1/api.ts';
import type {
  CgroupDetails,
  CgroupUsage,
  LayerUsage,
  NetworkFigures,
  ProcessFigures,
} from '@cribus/contracts/gen/node/v1/records.ts';

/** What a metric is taken of: a container, or a pod as a whole. */
export interface Subject {
  readonly kind: 'container' | 'pod';
  readonly cgroup?: CgroupUsage | undefined;
  readonly processes?: ProcessFigures | undefined;
  readonly layer?: LayerUsage | undefined;
  readonly network?: NetworkFigures | undefined;
  readonly createdAtNs: bigint;
  /** 0 for one that has not started. */
  readonly startedAtNs: bigint;
  readonly sampledAtNs: bigint;
}

/** A value and what stands for the family's own labels, in their order. */
export interface Value {
  readonly value: bigint;
  readonly labels: readonly string[];
}

export interface Family {
  readonly name: string;
  readonly help: string;
  readonly type: MetricType;
  /** Behind those that all families have. */
  readonly labels: readonly string[];
  /** Not in the kubelet's own choice of cAdvisor's metrics: left out where there are very many containers. */
  readonly extra: boolean;
  values(of: Subject): readonly Value[];
}

/** What is not counted has no value. */
export function one(value: bigint | undefined): readonly Value[] {
  return value === undefined ? [] : [{ value, labels: [] }];
}

/** CRI's values are whole numbers, and cAdvisor's names end in `_seconds`. */
export function seconds(ns: bigint | undefined): bigint | undefined {
  return ns === undefined ? undefined : ns / 1_000_000_000n;
}

interface Text {
  readonly help: string;
  readonly labels?: readonly string[];
  readonly extra?: boolean;
}

export function counter(name: string, text: Text, values: Family['values']): Family {
  return family(name, text, { type: MetricType.COUNTER, values });
}

export function gauge(name: string, text: Text, values: Family['values']): Family {
  return family(name, text, { type: MetricType.GAUGE, values });
}

function family(
  name: string,
  { help, labels = [], extra = false }: Text,
  rest: Pick<Family, 'type' | 'values'>,
): Family {
  return { name, help, labels, extra, ...rest };
}

/** A family with one value from the details of the cgroup. */
export function detail(
  make: typeof counter,
  name: string,
  options: Text & { readonly pick: (details: CgroupDetails) => bigint | undefined },
): Family {
  return make(name, options, ({ cgroup }) =>
    cgroup?.details === undefined ? [] : one(options.pick(cgroup.details)),
  );
}
