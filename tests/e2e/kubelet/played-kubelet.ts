// Plays the kubelet's part against a real stack: relists every second, compares what runs with what
// should run, and makes it so with the kubelet's calls, in its order, with its deadlines and again and
// again. What is decided is in pod-actions.ts, what is asked in manifest.ts.

import assert from 'node:assert/strict';
import { existsSync, mkdirSync, readFileSync, rmSync, symlinkSync } from 'node:fs';
import { createConnection } from 'node:net';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import {
  type Container,
  type ContainerStatus,
  CreateContainerRequest,
  ExecSyncRequest,
  ImageStatusRequest,
  ListContainersRequest,
  ListPodSandboxRequest,
  type PodSandbox,
  PodSandboxState,
  PullImageRequest,
  RunPodSandboxRequest,
} from '@cribus/contracts/gen/cri/v1/api.ts';
import { detectCgroups } from '@cribus/host/cgroups.ts';
import { hasCode } from '../harness/cri.ts';
import { fetchText } from '../harness/http.ts';
import { type KubeletClient, unlessGone } from './client-checks.ts';
import {
  allContainers,
  type ContainerManifest,
  containerConfig,
  type NodePaths,
  type PodManifest,
  type Probe,
  podCgroup,
  podDirectory,
  sandboxConfig,
} from './manifest.ts';
import {
  isRunning,
  isSidecar,
  latest,
  NO_STATUS,
  type PodStatus,
  podActions,
} from './pod-actions.ts';
import { terminationMessage } from './termination-message.ts';

export const POD_UID = 'io.kubernetes.pod.uid';
const RELIST_MS = 1_000;
/** Between two looks at a pod for which somebody waits, as with PLEGOnDemandRelist. */
const LOOK_MS = 150;
/** The kubelet's minimumGracePeriodInSeconds. */
const GRACE_MIN_S = 2;
/** The kubelet's are 10 s and, with crashLoopBackOff.maxContainerRestartPeriod, 1 s at least. */
const BACKOFF_FIRST_MS = 500;
const BACKOFF_MAX_MS = 1_000;
const PROBE_TIMEOUT_S = 1n;
const PROBE_FAILURES = 3;
const GRPC_DEADLINE_EXCEEDED = 4;

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

export class PlayedKubelet {
  readonly client: KubeletClient;
  readonly paths: NodePaths;
  /** What it did, in order, as `start web/main 0`. */
  readonly done: string[] = [];
  /** What no runtime may answer, found while relisting. */
  readonly faults: string[] = [];
  readonly probes = {
    failedLiveness: new Set<string>(),
    failedStartup: new Set<string>(),
    started: new Set<string>(),
    ready: new Set<string>(),
  };
  readonly #pods = new Map<string, PodManifest>();
  readonly #terminating = new Set<string>();
  readonly #cache = new Map<string, PodStatus>();
  readonly #signatures = new Map<string, string>();
  readonly #backoffs = new Map<string, number>();
  readonly #startErrors = new Map<string, string>();
  readonly #probeFailures = new Map<string, number>();
  readonly #stopped = new AbortController();
  #relisting: Promise<void> = Promise.resolve();

  constructor(client: KubeletClient, paths: NodePaths) {
    this.client = client;
    this.paths = paths;
  }

  /** Relists every second from now on, as the generic PLEG. */
  relistEverySecond(): void {
    const loop = async () => {
      while (!this.#stopped.signal.aborted) {
        // While the runtime is away the kubelet says so and asks again in a second.
        await this.relist().catch(() => undefined);
        await sleep(RELIST_MS, undefined, { signal: this.#stopped.signal }).catch(() => undefined);
      }
    };
    this.#relisting = loop();
  }

  async stopRelisting(): Promise<void> {
    this.#stopped.abort();
    await this.#relisting;
  }

  /** What the API server says should run. */
  add(pod: PodManifest): void {
    this.#pods.set(pod.uid, pod);
  }

  /** Forgets what it knows of pods and reads it from the runtime, as a restarted kubelet. */
  forget(): void {
    this.#cache.clear();
    this.#signatures.clear();
    this.#backoffs.clear();
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
    const waiting = this.#startErrors.get(`${pod.uid}/${name}`);
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
    await Promise.all(
      pods.map(async (pod) => {
        await this.relist(pod.uid);
        await this.#probeAll(pod);
        await this.#sync(pod);
      }),
    );
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
    if (actions.killPod) await this.#killPod(pod, status);
    await Promise.all(
      actions.kill.map((one) => this.#killContainer(pod, one.status, `: ${one.why}`)),
    );
    const isIdle = actions.start.length === 0 && actions.createSandbox === undefined;
    if (isIdle) return;
    let { sandboxId } = actions;
    const config = sandboxConfig(this.paths, pod, actions.attempt);
    if (actions.createSandbox !== undefined) {
      this.done.push(`sandbox ${pod.name} ${actions.attempt}: ${actions.createSandbox}`);
      detectCgroups().create(podCgroup(this.paths, pod));
      mkdirSync(config.logDirectory, { recursive: true });
      const request = RunPodSandboxRequest.fromPartial({ config, runtimeHandler: pod.handler });
      sandboxId = (await this.client.ask('runPodSandbox', request)).podSandboxId;
      const answer = await this.client.ask('podSandboxStatus', {
        podSandboxId: sandboxId,
        verbose: false,
      });
      const ip = answer.status?.network?.ip ?? '';
      assert.equal(answer.status?.state, PodSandboxState.SANDBOX_READY);
      assert.equal(ip === '', pod.hostNetwork, `the address of ${pod.name} is "${ip}"`);
    }
    for (const container of actions.start) {
      await this.#start(pod, container, { sandboxId, config, status });
    }
    await this.relist(pod.uid);
  }

  async #start(
    pod: PodManifest,
    container: ContainerManifest,
    {
      sandboxId,
      config: sandbox,
      status,
    }: {
      readonly sandboxId: string;
      readonly config: ReturnType<typeof sandboxConfig>;
      readonly status: PodStatus;
    },
  ): Promise<void> {
    const key = `${pod.uid}/${container.name}`;
    const last = latest(status, container.name);
    if (last !== undefined && this.#isInBackoff(key, last)) {
      this.#startErrors.set(key, 'CrashLoopBackOff');
      return;
    }
    const restarts = last?.annotations['io.kubernetes.container.restartCount'];
    const restartCount = restarts === undefined ? 0 : Number(restarts) + 1;
    let step = 'ErrImagePull';
    try {
      const imageId = await this.#ensureImage(pod, container, sandbox);
      step = 'CreateContainerError';
      const target = latest(status, container.targetContainerName ?? '');
      const config = containerConfig(this.paths, pod, {
        container,
        restartCount,
        imageId,
        ...(target === undefined ? {} : { targetId: target.id }),
      });
      const { containerId } = await this.client.ask(
        'createContainer',
        CreateContainerRequest.fromPartial({
          podSandboxId: sandboxId,
          config,
          sandboxConfig: sandbox,
        }),
      );
      step = 'RunContainerError';
      await this.client.ask('startContainer', { containerId });
      this.done.push(`start ${pod.name}/${container.name} ${restartCount}`);
      this.#linkLog(pod, container, containerId, join(sandbox.logDirectory, config.logPath));
      step = 'PostStartHookError';
      if (container.postStart !== undefined) {
        await this.#runHook(pod, container, containerId);
      }
      this.#startErrors.delete(key);
    } catch (error) {
      this.#startErrors.set(key, step);
      this.done.push(`${step} ${pod.name}/${container.name}: ${String(error)}`);
    }
  }

  /** As in flowcontrol.Backoff: the first restart is at once, the next after 10 s, 20 s, … */
  #isInBackoff(key: string, last: ContainerStatus): boolean {
    const backoffMs = this.#backoffs.get(key);
    const sinceMs = Date.now() - Number(last.finishedAt / 1_000_000n);
    if (backoffMs !== undefined && sinceMs < backoffMs) return true;
    const next = backoffMs === undefined ? BACKOFF_FIRST_MS : backoffMs * 2;
    this.#backoffs.set(key, Math.min(next, BACKOFF_MAX_MS));
    return false;
  }

  /** Answers the image's id. Each secret is tried until one serves, and none if there are none. */
  async #ensureImage(
    pod: PodManifest,
    container: ContainerManifest,
    sandbox: ReturnType<typeof sandboxConfig>,
  ): Promise<string> {
    const image = { image: container.image, annotations: sandbox.annotations };
    const find = async () => {
      const request = ImageStatusRequest.fromPartial({ image });
      return (await this.client.ask('imageStatus', request)).image?.id;
    };
    const policy = container.imagePullPolicy ?? 'IfNotPresent';
    const present = await find();
    if (present !== undefined && policy !== 'Always') return present;
    if (policy === 'Never') throw new Error('ErrImageNeverPull');
    const secrets = pod.imagePullSecrets.length === 0 ? [undefined] : pod.imagePullSecrets;
    let failure: unknown;
    for (const auth of secrets) {
      try {
        const request = PullImageRequest.fromPartial({ image, sandboxConfig: sandbox, auth });
        const { imageRef } = await this.client.ask('pullImage', request);
        // What EnsureSecretPulledImages records; another id lets others use a private image.
        assert.equal(imageRef, await find(), 'image_ref is not the id of the image');
        return imageRef;
      } catch (error) {
        failure = error;
      }
    }
    throw failure;
  }

  async #runHook(pod: PodManifest, container: ContainerManifest, containerId: string) {
    const cmd = [...(container.postStart ?? [])];
    const request = ExecSyncRequest.fromPartial({ containerId, cmd });
    const { exitCode } = await this.client.ask('execSync', request);
    if (exitCode === 0) return;
    const timeout = BigInt(Math.max(GRACE_MIN_S, pod.terminationGracePeriodS));
    await this.client.ask('stopContainer', { containerId, timeout });
    throw new Error(`FailedPostStartHook: ${exitCode}`);
  }

  #linkLog(pod: PodManifest, { name }: ContainerManifest, id: string, log: string): void {
    mkdirSync(this.paths.containerLogs, { recursive: true });
    symlinkSync(log, join(this.paths.containerLogs, logLink(pod, name, id)));
  }

  /** preStop, then StopContainer with what is left of the grace period, two seconds at least. */
  async #killContainer(pod: PodManifest, status: ContainerStatus, why: string): Promise<void> {
    const name = status.metadata?.name ?? '';
    const { preStop } = allContainers(pod).find((one) => one.name === name) ?? {};
    const began = performance.now();
    const containerId = status.id;
    if (preStop !== undefined) {
      const timeout = BigInt(pod.terminationGracePeriodS);
      const request = ExecSyncRequest.fromPartial({ containerId, cmd: [...preStop], timeout });
      await this.client.ask('execSync', request).catch(() => undefined);
    }
    const elapsedS = Math.floor((performance.now() - began) / 1000);
    const left = Math.max(GRACE_MIN_S, pod.terminationGracePeriodS - elapsedS);
    await this.client.ask('stopContainer', { containerId, timeout: BigInt(left) });
    this.done.push(`stop ${pod.name}/${name}${why}`);
  }

  /** Containers in parallel, then sidecars one by one from the last, then every sandbox. */
  async #killPod(pod: PodManifest, status: PodStatus): Promise<void> {
    const running = status.containers.filter((one) => isRunning(one));
    const sidecars = pod.initContainers.filter(isSidecar).map(({ name }) => name);
    const isOfSidecar = (one: ContainerStatus) => sidecars.includes(one.metadata?.name ?? '');
    const others = running.filter((one) => !isOfSidecar(one));
    await Promise.all(others.map((one) => this.#killContainer(pod, one, '')));
    for (const name of sidecars.toReversed()) {
      const sidecar = running.find((one) => one.metadata?.name === name);
      if (sidecar !== undefined) await this.#killContainer(pod, sidecar, '');
    }
    for (const { id: podSandboxId } of status.sandboxes) {
      await this.client.ask('stopPodSandbox', { podSandboxId });
    }
    await this.relist(pod.uid);
  }

  /** The way of a deleted pod until only its stopped sandboxes are left, for the next collection. */
  async terminate(pod: PodManifest): Promise<void> {
    this.#terminating.add(pod.uid);
    await this.relist(pod.uid);
    await this.#killPod(pod, this.statusOf(pod));
    const { containers } = this.statusOf(pod);
    assert.deepEqual(containers.filter(isRunning), [], 'a stopped container runs');
    for (const status of containers) await this.#removeContainer(pod, status);
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
        if (isDeleted || kept.has(name)) await this.#removeContainer(pod, status);
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

  async #removeContainer(pod: PodManifest, status: ContainerStatus): Promise<void> {
    await this.client.ask('removeContainer', { containerId: status.id });
    const link = join(
      this.paths.containerLogs,
      logLink(pod, status.metadata?.name ?? '', status.id),
    );
    rmSync(link, { force: true });
    rmSync(status.logPath, { force: true });
    const request = { containerId: status.id, verbose: false };
    const after = await unlessGone(this.client.ask('containerStatus', request));
    assert.equal(after, undefined, 'a removed container has a status');
  }

  /** Terminates every pod and collects what is left of it. */
  async terminateAll(): Promise<void> {
    const pods = [...this.#pods.values()];
    await Promise.all(
      pods.filter(({ uid }) => !this.#terminating.has(uid)).map((pod) => this.terminate(pod)),
    );
    await this.collectGarbage();
  }

  async #probeAll(pod: PodManifest): Promise<void> {
    for (const container of [...pod.initContainers, ...pod.containers]) {
      const status = latest(this.statusOf(pod), container.name);
      if (!isRunning(status)) continue;
      const { startup, liveness, readiness } = container;
      const { started, ready, failedStartup, failedLiveness } = this.probes;
      if (startup !== undefined && !started.has(status.id)) {
        await this.#judge(pod, status.id, startup, { good: started, bad: failedStartup });
        continue;
      }
      if (liveness !== undefined)
        await this.#judge(pod, status.id, liveness, { good: new Set(), bad: failedLiveness });
      if (readiness !== undefined) {
        const now = await this.probe(pod, status.id, readiness);
        if (now === 'success') ready.add(status.id);
        else if (now === 'failure') ready.delete(status.id);
      }
    }
  }

  async #judge(
    pod: PodManifest,
    id: string,
    probe: Probe,
    { good, bad }: { readonly good: Set<string>; readonly bad: Set<string> },
  ): Promise<void> {
    const now = await this.probe(pod, id, probe);
    if (now === 'unknown') return;
    const failures = now === 'success' ? 0 : (this.#probeFailures.get(id) ?? 0) + 1;
    this.#probeFailures.set(id, failures);
    if (now === 'success') good.add(id);
    else if (failures >= PROBE_FAILURES) bad.add(id);
  }

  /** An error other than the time-out tells nothing, so the kubelet throws the result away. */
  async probe(
    pod: PodManifest,
    containerId: string,
    probe: Probe,
  ): Promise<'success' | 'failure' | 'unknown'> {
    if ('exec' in probe) {
      const request = { containerId, cmd: [...probe.exec], timeout: PROBE_TIMEOUT_S };
      try {
        const { exitCode } = await this.client.ask(
          'execSync',
          ExecSyncRequest.fromPartial(request),
        );
        return exitCode === 0 ? 'success' : 'failure';
      } catch (error) {
        return hasCode(error, GRPC_DEADLINE_EXCEEDED) ? 'failure' : 'unknown';
      }
    }
    const host = this.ipOf(pod) || '127.0.0.1';
    try {
      if ('httpGet' in probe)
        await fetchText(`http://${host}:${probe.httpGet.port}${probe.httpGet.path}`);
      else await connectTo(host, probe.tcpSocket.port);
      return 'success';
    } catch {
      return 'failure';
    }
  }

  /** The log of a container through the link that people and log collectors read. */
  logOf(pod: PodManifest, name: string, containerId?: string): string {
    const id = containerId ?? this.containerOf(pod, name).id;
    const link = join(this.paths.containerLogs, logLink(pod, name, id));
    return existsSync(link) ? readFileSync(link, 'utf8') : '';
  }
}

function logLink(pod: PodManifest, name: string, id: string): string {
  return `${pod.name}_${pod.namespace}_${name}-${id}.log`;
}

function newestFirst<T extends { readonly createdAt: bigint }>(items: readonly T[]): T[] {
  return items.toSorted((one, other) => Number(other.createdAt - one.createdAt));
}

function connectTo(host: string, port: number): Promise<void> {
  return new Promise((resolve, reject) => {
    const socket = createConnection({ host, port, timeout: 1_000 }, () => {
      socket.destroy();
      resolve();
    });
    socket.on('timeout', () => socket.destroy(new Error(`no answer of ${host}:${port}`)));
    socket.on('error', reject);
  });
}
