// Every method of both CRI services and what serves it: a mapped type over the generated service
// definitions, so that a method without an entry does not compile.

import type {
  ImageServiceService,
  RuntimeServiceService,
} from '@cribus/contracts/gen/cri/v1/services.ts';
import type { Gateway, StreamVerb, Verb } from './gateway.ts';
import { attach } from './verbs/attach.ts';
import { checkpointContainer } from './verbs/checkpoint-container.ts';
import { containerStats } from './verbs/container-stats.ts';
import { containerStatus } from './verbs/container-status.ts';
import { createContainer } from './verbs/create-container.ts';
import { exec } from './verbs/exec.ts';
import { execSync } from './verbs/exec-sync.ts';
import { getContainerEvents } from './verbs/get-container-events.ts';
import { imageFsInfo } from './verbs/image-fs-info.ts';
import { imageStatus } from './verbs/image-status.ts';
import { listContainerStats } from './verbs/list-container-stats.ts';
import { listContainers } from './verbs/list-containers.ts';
import { listImages } from './verbs/list-images.ts';
import { listMetricDescriptors } from './verbs/list-metric-descriptors.ts';
import { listPodSandbox } from './verbs/list-pod-sandbox.ts';
import { listPodSandboxMetrics } from './verbs/list-pod-sandbox-metrics.ts';
import { listPodSandboxStats } from './verbs/list-pod-sandbox-stats.ts';
import { podSandboxStats } from './verbs/pod-sandbox-stats.ts';
import { podSandboxStatus } from './verbs/pod-sandbox-status.ts';
import { portForward } from './verbs/port-forward.ts';
import { pullImage } from './verbs/pull-image.ts';
import { removeContainer } from './verbs/remove-container.ts';
import { removeImage } from './verbs/remove-image.ts';
import { removePodSandbox } from './verbs/remove-pod-sandbox.ts';
import { reopenContainerLog } from './verbs/reopen-container-log.ts';
import { runPodSandbox } from './verbs/run-pod-sandbox.ts';
import { runtimeConfig } from './verbs/runtime-config.ts';
import { startContainer } from './verbs/start-container.ts';
import { status } from './verbs/status.ts';
import { stopContainer } from './verbs/stop-container.ts';
import { stopPodSandbox } from './verbs/stop-pod-sandbox.ts';
import { streamContainerStats } from './verbs/stream-container-stats.ts';
import { streamContainers } from './verbs/stream-containers.ts';
import { streamImages } from './verbs/stream-images.ts';
import { streamPodSandboxMetrics } from './verbs/stream-pod-sandbox-metrics.ts';
import { streamPodSandboxStats } from './verbs/stream-pod-sandbox-stats.ts';
import { streamPodSandboxes } from './verbs/stream-pod-sandboxes.ts';
import { updateContainerResources } from './verbs/update-container-resources.ts';
import { updatePodSandboxResources } from './verbs/update-pod-sandbox-resources.ts';
import { updateRuntimeConfig } from './verbs/update-runtime-config.ts';
import { version } from './verbs/version.ts';

export type CriMethods = typeof RuntimeServiceService & typeof ImageServiceService;
export type CriMethodName = keyof CriMethods;

type CriRequest<M> = M extends { requestDeserialize(bytes: Buffer): infer R } ? R : never;
type CriResponse<M> = M extends { responseDeserialize(bytes: Buffer): infer R } ? R : never;

/** Answered with bytes that were encoded when their objects changed. */
type EncodedMethod =
  | 'listPodSandbox'
  | 'listContainers'
  | 'listImages'
  | 'listPodSandboxMetrics'
  | 'getContainerEvents'
  | 'streamPodSandboxes'
  | 'streamContainers'
  | 'streamImages'
  | 'streamContainerStats'
  | 'streamPodSandboxStats'
  | 'streamPodSandboxMetrics';

interface Served<Request, Response> {
  readonly verb: Verb<Request, Response>;
  /** Changes something: its log line is worth keeping. */
  readonly mutates: boolean;
}

interface Streamed<Request, Message> {
  readonly stream: StreamVerb<Request, Message>;
  /** Never ends of itself. */
  readonly endless: boolean;
}

/** Not there yet: UNIMPLEMENTED with this sentence. */
export interface Missing {
  readonly missing: string;
}

type Answer<K extends CriMethodName> = K extends EncodedMethod
  ? Buffer
  : CriResponse<CriMethods[K]>;

type Entry<K extends CriMethodName> =
  | Missing
  | (CriMethods[K]['responseStream'] extends true
      ? Streamed<CriRequest<CriMethods[K]>, Answer<K>>
      : Served<CriRequest<CriMethods[K]>, Answer<K>>);

export type CriVerbTable = { readonly [K in CriMethodName]: Entry<K> };

export const ENCODED_METHODS: ReadonlySet<string> = new Set<EncodedMethod>([
  'listPodSandbox',
  'listContainers',
  'listImages',
  'listPodSandboxMetrics',
  'getContainerEvents',
  'streamPodSandboxes',
  'streamContainers',
  'streamImages',
  'streamContainerStats',
  'streamPodSandboxStats',
  'streamPodSandboxMetrics',
]);

function reads<Request, Response>(verb: Verb<Request, Response>): Served<Request, Response> {
  return { verb, mutates: false };
}

function changes<Request, Response>(verb: Verb<Request, Response>): Served<Request, Response> {
  return { verb, mutates: true };
}

function streams<Request, Message>(
  stream: StreamVerb<Request, Message>,
): Streamed<Request, Message> {
  return { stream, endless: false };
}

/** The table. */
export function criVerbs(gateway: Gateway): CriVerbTable {
  return {
    version: reads(version(gateway)),
    status: reads(status(gateway)),
    runtimeConfig: reads(runtimeConfig(gateway)),
    updateRuntimeConfig: changes(updateRuntimeConfig()),

    runPodSandbox: changes(runPodSandbox(gateway)),
    stopPodSandbox: changes(stopPodSandbox(gateway)),
    removePodSandbox: changes(removePodSandbox(gateway)),
    podSandboxStatus: reads(podSandboxStatus(gateway)),
    listPodSandbox: reads(listPodSandbox(gateway)),

    createContainer: changes(createContainer(gateway)),
    startContainer: changes(startContainer(gateway)),
    stopContainer: changes(stopContainer(gateway)),
    removeContainer: changes(removeContainer(gateway)),
    containerStatus: reads(containerStatus(gateway)),
    listContainers: reads(listContainers(gateway)),
    reopenContainerLog: changes(reopenContainerLog(gateway)),
    execSync: changes(execSync(gateway)),

    pullImage: changes(pullImage(gateway)),
    imageStatus: reads(imageStatus(gateway)),
    listImages: reads(listImages(gateway)),
    removeImage: changes(removeImage()),
    imageFsInfo: reads(imageFsInfo()),

    exec: reads(exec(gateway)),
    attach: reads(attach(gateway)),
    portForward: reads(portForward(gateway)),
    containerStats: reads(containerStats(gateway)),
    listContainerStats: reads(listContainerStats(gateway)),
    podSandboxStats: reads(podSandboxStats(gateway)),
    listPodSandboxStats: reads(listPodSandboxStats(gateway)),
    listMetricDescriptors: reads(listMetricDescriptors()),
    listPodSandboxMetrics: reads(listPodSandboxMetrics(gateway)),
    updateContainerResources: changes(updateContainerResources(gateway)),
    updatePodSandboxResources: changes(updatePodSandboxResources(gateway)),
    checkpointContainer: changes(checkpointContainer(gateway)),
    getContainerEvents: { stream: getContainerEvents(gateway), endless: true },
    // All of them or none: one UNIMPLEMENTED turns all off in a client (cri-client).
    streamPodSandboxes: streams(streamPodSandboxes(gateway)),
    streamContainers: streams(streamContainers(gateway)),
    streamContainerStats: streams(streamContainerStats(gateway)),
    streamPodSandboxStats: streams(streamPodSandboxStats(gateway)),
    streamPodSandboxMetrics: streams(streamPodSandboxMetrics(gateway)),
    streamImages: streams(streamImages(gateway)),
  };
}
