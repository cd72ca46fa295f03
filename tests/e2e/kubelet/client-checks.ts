// What the kubelet's CRI client refuses in an answer, and how long it waits for one: cri-client's
// remote_runtime.go and remote_image.go (1.34 to 1.37). A method that is asked here is asked so.

import assert from 'node:assert/strict';
import type { ContainerStatus, Image, PodSandboxStatus } from '@cribus/contracts/gen/cri/v1/api.ts';
import type { Cri } from '../harness/cri.ts';
import {
  hasCode,
  type Method,
  type RequestOfMethod,
  type ResponseOfMethod,
} from '../harness/cri.ts';

const DEFAULT_MS = 120_000;
const RUN_POD_MS = 240_000;
/** For PullImage, which the kubelet bounds by nothing. */
const UNBOUNDED_MS = 600_000;
const GRPC_NOT_FOUND = 5;
const GRPC_UNIMPLEMENTED = 12;
/** With the feature gate CRIListStreaming: the stream of a list, and where each has its items. */
const STREAMED: Readonly<Partial<Record<Method, readonly [Method, string, string]>>> = {
  listPodSandbox: ['streamPodSandboxes', 'podSandboxes', 'items'],
  listContainers: ['streamContainers', 'containers', 'containers'],
  listImages: ['streamImages', 'images', 'images'],
  listContainerStats: ['streamContainerStats', 'containerStats', 'stats'],
  listPodSandboxStats: ['streamPodSandboxStats', 'podSandboxStats', 'stats'],
  listPodSandboxMetrics: ['streamPodSandboxMetrics', 'podSandboxMetrics', 'podMetrics'],
};

export interface Asked {
  readonly method: Method;
  readonly request: object;
}

/** Asks with the kubelet's deadline for the method, and counts. */
export class KubeletClient {
  readonly #cri: Cri;
  /** How often each method was asked. */
  readonly counts = new Map<Method, number>();
  /** All of it, in order. */
  readonly asked: Asked[] = [];
  /** Off for good once one of the streams is UNIMPLEMENTED. */
  listsByStreams = false;

  constructor(cri: Cri) {
    this.#cri = cri;
  }

  get cri(): Cri {
    return this.#cri;
  }

  async ask<M extends Method>(
    method: M,
    request: RequestOfMethod<M>,
  ): Promise<ResponseOfMethod<M>> {
    this.counts.set(method, this.count(method) + 1);
    this.asked.push({ method, request });
    const response =
      (await this.#listByStream(method, request)) ??
      (await this.#cri.call(method, request, { timeoutMs: deadlineMs(method, request) }));
    check(method, response);
    return response;
  }

  /** The answer of a list put together from its stream; undefined where there is none to use. */
  async #listByStream<M extends Method>(
    method: M,
    request: RequestOfMethod<M>,
  ): Promise<ResponseOfMethod<M> | undefined> {
    const [stream, itemsOfMessage, itemsOfList] = STREAMED[method] ?? [];
    if (!this.listsByStreams || stream === undefined) return undefined;
    const items: unknown[] = [];
    try {
      for await (const message of this.#cri.stream(stream, request as RequestOfMethod<Method>)) {
        items.push(...((message as Record<string, unknown[]>)[itemsOfMessage ?? ''] ?? []));
      }
    } catch (error) {
      if (!hasCode(error, GRPC_UNIMPLEMENTED)) throw error;
      this.listsByStreams = false;
      return undefined;
    }
    return { [itemsOfList ?? '']: items } as unknown as ResponseOfMethod<M>;
  }

  count(method: Method): number {
    return this.counts.get(method) ?? 0;
  }
}

/** Undefined for NOT_FOUND; any other failure leaves the pod to be inspected again, and is raised. */
export async function unlessGone<T>(call: Promise<T>): Promise<T | undefined> {
  try {
    return await call;
  } catch (error) {
    if (hasCode(error, GRPC_NOT_FOUND)) return undefined;
    throw error;
  }
}

function deadlineMs(method: Method, request: object): number {
  const timeout =
    'timeout' in request && typeof request.timeout === 'bigint' ? request.timeout : 0n;
  if (method === 'runPodSandbox') return RUN_POD_MS;
  if (method === 'pullImage') return UNBOUNDED_MS;
  if (method === 'execSync' && timeout === 0n) return UNBOUNDED_MS;
  return DEFAULT_MS + Number(timeout) * 1000;
}

function check(method: Method, response: object): void {
  const answer = response as {
    status?: PodSandboxStatus & ContainerStatus;
    podSandboxId?: string;
    containerId?: string;
    imageRef?: string;
    image?: Image;
    images?: Image[];
  };
  if (method === 'runPodSandbox') assert.ok(answer.podSandboxId, 'PodSandboxId is not set');
  if (method === 'createContainer') assert.ok(answer.containerId, 'ContainerId is not set');
  if (method === 'pullImage') assert.ok(answer.imageRef, 'imageRef of the image is not set');
  if (method === 'podSandboxStatus') checkSandbox(answer.status);
  if (method === 'containerStatus') checkContainer(answer.status);
  if (answer.image !== undefined) checkImage(answer.image);
  answer.images?.forEach(checkImage);
}

export function checkSandbox(status: PodSandboxStatus | undefined): void {
  const { id, metadata, createdAt } = status ?? {};
  const { name, namespace, uid } = metadata ?? {};
  assert.ok(id && name && namespace && uid && createdAt, `sandbox status lacks a field: ${id}`);
}

export function checkContainer(status: ContainerStatus | undefined): void {
  const { id, metadata, createdAt, image, imageRef } = status ?? {};
  assert.ok(
    id && metadata?.name && createdAt && image?.image && imageRef,
    `container status lacks a field: ${id}`,
  );
}

function checkImage(image: Image): void {
  assert.ok(image.id && image.size > 0n, `image lacks id or size: ${image.id}`);
}
