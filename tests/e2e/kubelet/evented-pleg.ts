// The kubelet's Evented PLEG (pleg/evented.go): what it makes of a runtime's container events, and of a
// stream of them that breaks.

import { once } from 'node:events';
import {
  type ContainerEventResponse,
  ContainerEventType,
  GetEventsRequest,
} from '@cribus/contracts/gen/cri/v1/api.ts';
import { newestFirst, type PlayedKubelet } from './played-kubelet.ts';

/** evented-pleg-max-stream-retries. */
const STREAM_RETRIES_MAX = 5;

export class EventedPleg {
  /** What it was told, in order. */
  readonly events: ContainerEventResponse[] = [];
  /** Streams that were opened and listened to. */
  connections = 0;
  hasFallenBack = false;
  readonly #kubelet: PlayedKubelet;
  #cancel: () => void = () => undefined;
  #stopped = false;
  #running: Promise<void> = Promise.resolve();

  constructor(kubelet: PlayedKubelet) {
    this.#kubelet = kubelet;
  }

  start(): void {
    this.#kubelet.followEvents('from now on');
    this.#running = this.#run();
  }

  /** Its connection is lost. */
  breakStream(): void {
    this.#cancel();
  }

  /** Back to the generic PLEG. */
  async stop(): Promise<void> {
    this.#stopped = true;
    this.#cancel();
    await this.#running;
    this.#kubelet.followEvents('no more');
  }

  async #run(): Promise<void> {
    for (let failures = 0; failures < STREAM_RETRIES_MAX; failures += 1) {
      await this.#listen();
      if (this.#stopped) return;
      await this.#kubelet.relist().catch(() => undefined);
    }
    this.hasFallenBack = true;
    this.#kubelet.followEvents('no more');
  }

  /** Until the stream breaks. */
  async #listen(): Promise<void> {
    const { cri } = this.#kubelet.client;
    const stream = cri.stream('getContainerEvents', GetEventsRequest.fromPartial({}));
    this.#cancel = () => stream.cancel();
    stream.once('metadata', () => {
      this.connections += 1;
    });
    stream.on('data', (event: ContainerEventResponse) => this.#take(event));
    await once(stream, 'end').catch(() => undefined);
  }

  #take(event: ContainerEventResponse): void {
    const { podSandboxStatus, containersStatuses, createdAt } = event;
    const uid = podSandboxStatus?.metadata?.uid;
    if (podSandboxStatus === undefined || uid === undefined) {
      this.#kubelet.faults.push(`an event of ${event.containerId} has no sandbox status`);
      return;
    }
    if (createdAt <= (this.events.at(-1)?.createdAt ?? 0n)) {
      this.#kubelet.faults.push(`the event of ${event.containerId} is older than the one before`);
    }
    this.events.push(event);
    const isDeleted = event.containerEventType === ContainerEventType.CONTAINER_DELETED_EVENT;
    if (isDeleted && event.containerId === podSandboxStatus.id) {
      this.#kubelet.forgetPod(uid);
      return;
    }
    const containers = newestFirst(containersStatuses);
    this.#kubelet.remember(uid, {
      sandboxes: [podSandboxStatus],
      containers,
      timestamp: createdAt,
    });
  }
}
