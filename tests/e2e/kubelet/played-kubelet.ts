// Plays the kubelet's part against a real stack: relists every second, compares what runs with what
// should run, and makes it so with the kubelet's calls, in its order, with its deadlines and again and
// again. What is decided is in pod-actions.ts, what is asked in manifest.ts; how one container is
// started, ended and probed is in container-starts.ts, pod-ends.ts and probes.ts.

import assert from 'node:assert/strict';
import { mkdirSync, rmSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import {
  type Container,
  type ContainerStatus,
  ListContainersRequest,
  ListPodSandboxRequest,
  type PodSandbox,
  type PodSandboxConfig,
  PodSandboxState,
  RunPodSandboxRequest,
} from '@cribus/contracts/gen/cri/v1/api.ts';
import { detectCgroups } from '@cribus/host/cgroups.ts';
import { type KubeletClient, unlessGone } from './client-checks.ts';
import { readLog } from './container-logs.ts';
import { ContainerStarts } from './container-starts.ts';
import {
  type NodePaths,
  type PodManifest,
  type Probe,
  podCgroup,
  podDirectory,
  podMemoryBytes,
  sandboxConfig,
} from './manifest.ts';
import type { NodeHands } from './node-hands.ts';
import { isRunning, latest, NO_STATUS, type PodStatus, podActions } from './pod-actions.ts';
import { isAlive, killContainer, killPod, removeContainer } from './pod-ends.ts';
import { hostOf, Prober } from './probes.ts';
import { terminationMessage } from './termination-message.ts';

export const POD_UID = 'io.kubernetes.pod.uid';
const RELIST_MS = 1_000;
/** Between two looks at a pod for which somebody waits, as with PLEGOnDemandRelist. */
const LOOK_MS = 150;
/** When what events told counts as fresh without a newer one; the kubelet's globalCacheUpdatePeriod is 5 s. */
const EVENTS_FRESH_MS = 1_000;
/** What `kubectl get pod -o yaml` shows of a container. */
export interface ShownContainer {
  readonly state: 'waiting' | 'running' | 'terminated';
  readonly reason: string;
  readonly restartCount: number;
  readonly exitCode: number;
  readonly message: string;
  /** Of what ended last, if it is not the state itself. */
  readonly lastReason: string;
}

export class PlayedKubelet implements NodeHands {
  readonly client: KubeletClient;
  readonly paths: NodePaths;
  /** What it did, in order, as `start web/main 0`. */
  readonly done: string[] = [];
  /** What no runtime may answer, found while relisting. */
  readonly faults: string[] = [];
  readonly #prober: Prober;
  readonly #starts: ContainerStarts;
  readonly #pods = new Map<string, PodManifest>();
  readonly #terminating = new Set<string>();
  readonly #cache = new Map<string, PodStatus>();
  readonly #signatures = new Map<string, string>();
  readonly #stopped = new AbortController();
  #relisting: Promise<void> = Promise.resolve();
  /** While it follows events: when it last did something for a pod, in milliseconds since 1970. */
  #synced: Map<string, number> | undefined;

  constructor(client: KubeletClient, paths: NodePaths) {
    this.client = client;
    this.paths = paths;
    this.#prober = new Prober(client);
    this.#starts = new ContainerStarts(this);
  }

  /** What the probes have found. */
  get probes(): Prober['results'] {
    return this.#prober.results;
  }

  /** Relists every second from now on, as the generic PLEG. */
  relistEverySecond(): void {
    const loop = async () => {
      while (!this.#stopped.signal.aborted) {
        // While the runtime is away the kubelet says so and asks again in a second.
        if (this.#synced === undefined) await this.relist().catch(() => undefined);
        await sleep(RELIST_MS, undefined, { signal: this.#stopped.signal }).catch(() => undefined);
      }
    };
    this.#relisting = loop();
  }

  async stopRelisting(): Promise<void> {
    this.#stopped.abort();
    await this.#relisting;
  }

  /** With Evented PLEG: no more relists but those that are asked for; or back to the generic one. */
  followEvents(how: 'from now on' | 'no more'): void {
    this.#synced = how === 'no more' ? undefined : new Map();
    this.#signatures.clear();
  }

  /** What the API server says should run. */
  add(pod: PodManifest): void {
    this.#pods.set(pod.uid, pod);
    this.#terminating.delete(pod.uid);
  }

  /** Forgets what it knows of pods and reads it from the runtime, as a restarted kubelet. */
  forget(): void {
    this.#cache.clear();
    this.#signatures.clear();
    this.#starts.forgetBackoffs();
  }

  statusOf(pod: PodManifest): PodStatus {
    return this.#cache.get(pod.uid) ?? NO_STATUS;
  }

  ipOf(pod: PodManifest): string {
    return this.statusOf(pod).sandboxes[0]?.network?.ip ?? '';
  }

  /** Of the newest container of the name. */
  containerOf(pod: PodManifest, name: string): ContainerStatus {
    const status = latest(this.statusOf(pod), name);
    assert.ok(status !== undefined, `${pod.name} has no container ${name}`);
    return status;
  }

  shown(pod: PodManifest, name: string): ShownContainer {
    const waiting = this.#starts.reasonOf(pod, name);
    const [now, before] = this.statusOf(pod).containers.filter(
      (one) => one.metadata?.name === name,
    );
    const nothing = { restartCount: 0, exitCode: 0, message: '', lastReason: '' };
    if (now === undefined) return { state: 'waiting', reason: waiting ?? '', ...nothing };
    const shown = {
      restartCount: Number(now.annotations['io.kubernetes.container.restartCount']),
      exitCode: now.exitCode,
      message: terminationMessage(now),
    };
    if (isRunning(now))
      return { state: 'running', reason: '', ...shown, lastReason: before?.reason ?? '' };
    const { reason } = now;
    if (waiting !== undefined)
      return { state: 'waiting', reason: waiting, ...shown, lastReason: reason };
    return { state: 'terminated', reason, ...shown, lastReason: before?.reason ?? '' };
  }

  /** Looks, acts and probes until `check` holds. */
  async until(what: string, check: () => boolean | Promise<boolean>, budgetMs = 40_000) {
    const deadline = performance.now() + budgetMs;
    for (;;) {
      await this.syncAll();
      if (await check()) return;
      if (performance.now() > deadline) {
        assert.fail(`${what}: not within ${budgetMs} ms. Done: ${this.done.slice(-12).join(', ')}`);
      }
      await sleep(LOOK_MS);
    }
  }

  /** Until every container of the pod that is to stay runs, and is ready. */
  async untilRunning(pod: PodManifest): Promise<void> {
    await this.until(`${pod.name} runs`, () =>
      pod.containers.every(({ name, readiness }) => {
        const status = latest(this.statusOf(pod), name);
        return isRunning(status) && (readiness === undefined || this.probes.ready.has(status.id));
      }),
    );
  }

  async syncAll(): Promise<void> {
    const pods = [...this.#pods.values()].filter(({ uid }) => !this.#terminating.has(uid));
    const syncs = await Promise.allSettled(
      pods.map(async (pod) => {
        if (this.#synced === undefined) await this.relist(pod.uid);
        else if (!this.#isFresh(pod.uid, this.#synced)) return;
        await this.#prober.probeAll(pod, this.statusOf(pod));
        await this.#sync(pod);
      }),
    );
    // None goes on when this returns, or two would act for one pod.
    for (const sync of syncs) if (sync.status === 'rejected') throw sync.reason;
  }

  /** As GetNewerThan of the kubelet's cache: a status from before the last sync is waited for. */
  #isFresh(uid: string, synced: ReadonlyMap<string, number>): boolean {
    const atMs = synced.get(uid) ?? 0;
    const knownAtMs = Number((this.#cache.get(uid)?.timestamp ?? 0n) / 1_000_000n);
    return knownAtMs > atMs || Date.now() - atMs > EVENTS_FRESH_MS;
  }

  /** Lists all, or what is of one pod, and inspects what changed, one after another. */
  async relist(uid?: string): Promise<void> {
    const timestamp = BigInt(Date.now()) * 1_000_000n;
    const filter = uid === undefined ? {} : { labelSelector: { [POD_UID]: uid } };
    const { items } = await this.client.ask(
      'listPodSandbox',
      ListPodSandboxRequest.fromPartial({ filter }),
    );
    const { containers } = await this.client.ask(
      'listContainers',
      ListContainersRequest.fromPartial({ filter }),
    );
    const uids = new Set([
      ...(uid === undefined ? this.#pods.keys() : [uid]),
      ...[...items, ...containers].map(({ labels }) => labels[POD_UID] ?? ''),
    ]);
    for (const each of uids) {
      const sandboxes = newestFirst(items.filter(({ labels }) => labels[POD_UID] === each));
      const own = newestFirst(containers.filter(({ labels }) => labels[POD_UID] === each));
      if (!this.#pods.has(each)) this.faults.push(`the pod of ${each} is nobody's`);
      const signature = [...sandboxes, ...own].map(({ id, state }) => `${id} ${state}`).join();
      if (this.#signatures.get(each) === signature) continue;
      const status = await this.#inspect(sandboxes, own, timestamp);
      if (this.remember(each, status)) this.#signatures.set(each, signature);
    }
  }

  /** False if what is known already is younger. */
  remember(uid: string, status: PodStatus): boolean {
    if (status.timestamp <= (this.#cache.get(uid)?.timestamp ?? 0n)) return false;
    this.#cache.set(uid, status);
    return true;
  }

  /** A sandbox of it was removed. */
  forgetPod(uid: string): void {
    this.#cache.delete(uid);
  }

  async #inspect(
    sandboxes: readonly PodSandbox[],
    containers: readonly Container[],
    timestamp: bigint,
  ): Promise<PodStatus> {
    const found: { sandboxes: PodStatus['sandboxes'][number][]; containers: ContainerStatus[] } = {
      sandboxes: [],
      containers: [],
    };
    for (const { id: podSandboxId } of sandboxes) {
      const request = { podSandboxId, verbose: false };
      const answer = await unlessGone(this.client.ask('podSandboxStatus', request));
      if (answer?.status !== undefined) found.sandboxes.push(answer.status);
      if (this.#synced !== undefined && answer !== undefined && answer.timestamp > 0n) {
        // With Evented PLEG this one answer has it all, and says of when it is.
        found.containers.push(...newestFirst(answer.containersStatuses));
        return { ...found, timestamp: answer.timestamp };
      }
    }
    for (const { id: containerId } of containers) {
      const request = { containerId, verbose: false };
      const answer = await unlessGone(this.client.ask('containerStatus', request));
      if (answer?.status !== undefined) found.containers.push(answer.status);
    }
    return { ...found, timestamp };
  }

  async #sync(pod: PodManifest): Promise<void> {
    const status = this.statusOf(pod);
    const actions = podActions(pod, status, this.probes);
    // A pod that has ended is ended once; one that is made again is always ended first.
    if (actions.killPod && (isAlive(status) || actions.createSandbox !== undefined)) {
      await killPod(this, pod, status);
      if (this.#synced === undefined) await this.relist(pod.uid);
      else this.#synced.set(pod.uid, Date.now());
    }
    await Promise.all(actions.kill.map((one) => killContainer(this, pod, one)));
    const isIdle = actions.start.length === 0 && actions.createSandbox === undefined;
    if (isIdle) return;
    const config = sandboxConfig(this.paths, pod, actions.attempt);
    let { sandboxId } = actions;
    if (actions.createSandbox !== undefined) {
      this.done.push(`sandbox ${pod.name} ${actions.attempt}: ${actions.createSandbox}`);
      sandboxId = await this.#runSandbox(pod, config);
    }
    for (const container of actions.start) {
      await this.#starts.start({ pod, container, sandboxId, sandboxConfig: config, status });
    }
    if (this.#synced === undefined) await this.relist(pod.uid);
    else this.#synced.set(pod.uid, Date.now());
  }

  async #runSandbox(pod: PodManifest, config: PodSandboxConfig): Promise<string> {
    const cgroups = detectCgroups();
    const cgroup = podCgroup(this.paths, pod);
    cgroups.create(cgroup);
    const memoryBytes = podMemoryBytes(pod);
    if (memoryBytes !== undefined) {
      await cgroups.setLimits(cgroup, { memoryBytes: BigInt(memoryBytes) });
    }
    mkdirSync(config.logDirectory, { recursive: true });
    const request = RunPodSandboxRequest.fromPartial({ config, runtimeHandler: pod.handler });
    const { podSandboxId } = await this.client.ask('runPodSandbox', request);
    const answer = await this.client.ask('podSandboxStatus', { podSandboxId, verbose: false });
    const ip = answer.status?.network?.ip ?? '';
    assert.equal(answer.status?.state, PodSandboxState.SANDBOX_READY);
    assert.equal(ip === '', pod.hostNetwork, `the address of ${pod.name} is "${ip}"`);
    return podSandboxId;
  }

  /** The way of a deleted pod until only its stopped sandboxes are left, for the next collection. */
  async terminate(pod: PodManifest): Promise<void> {
    this.#terminating.add(pod.uid);
    await this.relist(pod.uid);
    await killPod(this, pod, this.statusOf(pod));
    await this.relist(pod.uid);
    const { containers } = this.statusOf(pod);
    assert.deepEqual(containers.filter(isRunning), [], 'a stopped container runs');
    for (const status of containers) await removeContainer(this, pod, status);
    const cgroup = podCgroup(this.paths, pod);
    if (!detectCgroups().removeEmpty(cgroup)) this.faults.push(`${cgroup} is not empty`);
    rmSync(podDirectory(this.paths, pod), { recursive: true, force: true });
  }

  /** As each minute: all but the newest of dead containers and sandboxes, all of deleted pods. */
  async collectGarbage(): Promise<void> {
    await this.relist();
    for (const pod of this.#pods.values()) {
      const isDeleted = this.#terminating.has(pod.uid);
      const kept = new Set<string>();
      for (const status of this.statusOf(pod).containers) {
        const name = status.metadata?.name ?? '';
        if (isRunning(status)) continue;
        if (isDeleted || kept.has(name)) await removeContainer(this, pod, status);
        kept.add(name);
      }
      const all = ListContainersRequest.fromPartial({});
      const { containers } = await this.client.ask('listContainers', all);
      const inUse = new Set(containers.map(({ podSandboxId }) => podSandboxId));
      const dead = this.statusOf(pod).sandboxes.filter(
        ({ id, state }, index) =>
          (isDeleted || index > 0) && !inUse.has(id) && state !== PodSandboxState.SANDBOX_READY,
      );
      for (const { id: podSandboxId } of dead) {
        await this.client.ask('stopPodSandbox', { podSandboxId });
        await this.client.ask('removePodSandbox', { podSandboxId });
      }
      await this.relist(pod.uid);
      if (isDeleted) this.#pods.delete(pod.uid);
    }
  }

  /** Terminates every pod and collects what is left of it. */
  async terminateAll(): Promise<void> {
    const pods = [...this.#pods.values()];
    await Promise.all(
      pods.filter(({ uid }) => !this.#terminating.has(uid)).map((pod) => this.terminate(pod)),
    );
    await this.collectGarbage();
  }

  /** Of one container, once. */
  probe(pod: PodManifest, containerId: string, probe: Probe) {
    return this.#prober.probe({ containerId, host: hostOf(this.statusOf(pod)), probe });
  }

  /** The log of a container through the link that people and log collectors read. */
  logOf(pod: PodManifest, name: string, containerId?: string): string {
    const id = containerId ?? this.containerOf(pod, name).id;
    return readLog(this.paths, { pod, name, id });
  }
}

export function newestFirst<T extends { readonly createdAt: bigint }>(items: readonly T[]): T[] {
  return items.toSorted((one, other) => Number(other.createdAt - one.createdAt));
}
