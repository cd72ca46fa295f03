// Asks for lists and statuses without a pause while parts die. An error is an answer that a caller
// can deal with; a shorter list or a wrong state is not, and is kept.

import { setTimeout as sleep } from 'node:timers/promises';
import {
  ContainerStatusRequest,
  ListContainersRequest,
  ListPodSandboxRequest,
  PodSandboxStatusRequest,
} from '@cribus/contracts/gen/cri/v1/api.ts';
import { status as grpcStatus, type ServiceError } from '@grpc/grpc-js';
import { type Cri, connectCri } from '../../e2e/harness/cri.ts';
import { type CountingPod, SHOWN_STATES } from './counting-pod.ts';

export interface Observation {
  /** Calls that were answered without an error. */
  readonly answers: number;
  /** Errors by the name of their gRPC code. */
  readonly errors: Readonly<Record<string, number>>;
  /** What must never be answered. */
  readonly wrong: readonly string[];
}

export interface Observer {
  stop(): Promise<Observation>;
}

/** What a caller may be told while a part is away: ask again. Anything else misleads it. */
const HONEST_ERRORS: readonly number[] = [
  grpcStatus.UNAVAILABLE,
  grpcStatus.DEADLINE_EXCEEDED,
  grpcStatus.CANCELLED,
];
const CALL_TIMEOUT_MS = 3_000;
const PAUSE_MS = 10;

interface Watched extends Pick<CountingPod, 'podId' | 'containerId' | 'ip' | 'handler'> {}

/** Begins to ask, over connections of its own. */
export function observe(endpoint: string, pods: readonly Watched[]): Observer {
  const cri = connectCri(endpoint);
  const errors: Record<string, number> = {};
  const wrong: string[] = [];
  let answers = 0;
  let stopped = false;

  const ask = async (what: string, question: () => Promise<string | undefined>) => {
    while (!stopped) {
      try {
        const fault = await question();
        answers += 1;
        if (fault !== undefined) wrong.push(`${what}: ${fault}`);
      } catch (error) {
        const { code, details } = error as ServiceError;
        const name = grpcStatus[code] ?? String(error);
        errors[name] = (errors[name] ?? 0) + 1;
        if (!HONEST_ERRORS.includes(code)) wrong.push(`${what}: ${name} ${details}`);
      }
      await sleep(PAUSE_MS);
    }
  };
  const loops = [
    ask('ListContainers', () => faultOfContainers(cri, pods)),
    ask('ListPodSandbox', () => faultOfSandboxes(cri, pods)),
    ...pods.map((pod) => ask(`ContainerStatus ${pod.handler}`, () => faultOfContainer(cri, pod))),
    ...pods.map((pod) => ask(`PodSandboxStatus ${pod.handler}`, () => faultOfSandbox(cri, pod))),
  ];
  return {
    async stop() {
      stopped = true;
      await Promise.all(loops);
      cri.close();
      return { answers, errors, wrong };
    },
  };
}

const timeout = { timeoutMs: CALL_TIMEOUT_MS };

async function faultOfContainers(cri: Cri, pods: readonly Watched[]): Promise<string | undefined> {
  const request = ListContainersRequest.fromPartial({});
  const { containers } = await cri.call('listContainers', request, timeout);
  for (const pod of pods) {
    const found = containers.find(({ id }) => id === pod.containerId);
    if (found === undefined) return `of ${containers.length}, ${pod.handler}'s is not listed`;
    if (found.state !== SHOWN_STATES.container) return `${pod.handler} has state ${found.state}`;
  }
  return undefined;
}

async function faultOfSandboxes(cri: Cri, pods: readonly Watched[]): Promise<string | undefined> {
  const request = ListPodSandboxRequest.fromPartial({});
  const { items } = await cri.call('listPodSandbox', request, timeout);
  for (const pod of pods) {
    const found = items.find(({ id }) => id === pod.podId);
    if (found === undefined) return `of ${items.length}, ${pod.handler}'s is not listed`;
    if (found.state !== SHOWN_STATES.sandbox) return `${pod.handler} has state ${found.state}`;
  }
  return undefined;
}

async function faultOfContainer(cri: Cri, pod: Watched): Promise<string | undefined> {
  const request = ContainerStatusRequest.fromPartial({ containerId: pod.containerId });
  const { status } = await cri.call('containerStatus', request, timeout);
  if (status?.id !== pod.containerId) return `answers ${status?.id}`;
  if (status.state !== SHOWN_STATES.container) return `has state ${status.state}`;
  if (status.exitCode !== 0 || status.finishedAt !== 0n) return `has exit code ${status.exitCode}`;
  return undefined;
}

async function faultOfSandbox(cri: Cri, pod: Watched): Promise<string | undefined> {
  const request = PodSandboxStatusRequest.fromPartial({ podSandboxId: pod.podId });
  const { status } = await cri.call('podSandboxStatus', request, timeout);
  if (status?.id !== pod.podId) return `answers ${status?.id}`;
  if (status.state !== SHOWN_STATES.sandbox) return `has state ${status.state}`;
  if (status.network?.ip !== pod.ip) return `has IP ${status.network?.ip}, not ${pod.ip}`;
  return undefined;
}
