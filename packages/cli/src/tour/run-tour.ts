// The tour: the same pod under each handler, the two kernels side by side, an answer over HTTP from
// each pod, their logs, and where to look next. Everything it makes is gone at its end.

import { randomUUID } from 'node:crypto';
import { mkdtemp, rm } from 'node:fs/promises';
import { request } from 'node:http';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import type { Config } from '@cribus/chassis/config.ts';
import { Failure, isFailure } from '@cribus/contracts/failure.ts';
import * as cri from '@cribus/contracts/gen/cri/v1/api.ts';
import { systemClock } from '@cribus/host/clock.ts';
import { readFileIfExists } from '@cribus/host/files.ts';
import { type CriClient, createCriClient } from '../cri-client.ts';
import { containerTable, podTable } from '../cri-tables.ts';
import { showPullProgress } from '../pull-progress.ts';
import { shellWord } from '../shell-word.ts';
import { metricsAddresses } from '../stack/metrics-addresses.ts';
import type { Stack } from '../stack/open-stack.ts';
import { columns } from '../table.ts';
import { buildWebImage, WEB_PORT } from './busybox.ts';
import { pushImage } from './image.ts';
import { startRegistry } from './registry.ts';

export interface TourOptions {
  /** It is up and ready. */
  readonly stack: Stack;
  /** As the services have it: ports, sockets, networks. */
  readonly config: Config;
  /** Another image than the tour's own; it is only asked for HTTP, and need not answer. */
  readonly image: string | undefined;
  readonly print: (line: string) => void;
  /** Aborts at Ctrl-C: the tour then removes what it made. */
  readonly signal: AbortSignal;
}

interface Guide extends TourOptions {
  readonly client: CriClient;
}

const HANDLERS = ['runc', 'gvisor'] as const;
const PAGE = 'hello from a pod\n';
const STEP_TIMEOUT_MS = 60_000;
/** Times 0.1 s that a container may take to say what it has to. */
const EXIT_LOOKS_MAX = 50;
const PULL_TIMEOUT_MS = 600_000;
/** How long a page may take after its pod was started: the tour's own, and any other image's. */
const HTTP_BUDGET_MS = 10_000;
const OTHER_HTTP_BUDGET_MS = 2_000;

interface TourPod {
  readonly handler: string;
  readonly podId: string;
  readonly containerId: string;
  readonly ip: string;
  readonly logPath: string;
  readonly config: cri.PodSandboxConfig;
}

type Undo = () => Promise<unknown>;

/** Runs the tour. Raises the first Failure; what was made before it is removed all the same. */
export async function runTour(options: TourOptions): Promise<void> {
  const client = createCriClient(options.config.gateway.socket);
  const undos: Undo[] = [];
  const guide: Guide = { ...options, client };
  try {
    await showPods(guide, undos);
  } finally {
    const problems = await undoAll(undos);
    client.close();
    for (const problem of problems) options.print(`Left behind by the tour: ${problem}`);
  }
  options.print("The tour's pods, image and registry are removed again.");
  whereNext(options);
}

async function showPods(guide: Guide, undos: Undo[]): Promise<void> {
  const { signal, print } = guide;
  const image = guide.image ?? (await serveOwnImage(guide, undos));
  await pull(guide, image, undos);
  const logs = await mkdtemp(join(tmpdir(), 'cribus-tour-'));
  undos.push(() => rm(logs, { recursive: true, force: true }));
  const pods: TourPod[] = [];
  for (const handler of HANDLERS) {
    signal.throwIfAborted();
    const pod = await runPod(guide, { handler, image, logs: join(logs, handler) }, undos);
    pods.push(pod);
  }
  signal.throwIfAborted();
  print("The same manifest under two handlers: one on the host's kernel, one on gVisor's own:");
  for (const line of await sideBySide(guide, pods)) print(line);
  for (const line of await tables(guide)) print(line);
  signal.throwIfAborted();
}

/** Newest first; one that fails doesn't keep the others. Answers a phrase for each failure. */
async function undoAll(undos: Undo[]): Promise<string[]> {
  const problems: string[] = [];
  for (const undo of undos.reverse()) {
    try {
      await undo();
    } catch (error) {
      problems.push(error instanceof Error ? error.message : String(error));
    }
  }
  return problems;
}

/** Builds the tour's image and serves it from a registry of its own; answers its reference. */
async function serveOwnImage({ signal }: Guide, undos: Undo[]): Promise<string> {
  const registry = await startRegistry();
  undos.push(() => registry.stop());
  const image = await buildWebImage(PAGE, signal);
  await pushImage(image, ['1'], { registry: registry.url, repository: 'tour/web', signal });
  return `${registry.host}/tour/web:1`;
}

async function pull(guide: Guide, image: string, undos: Undo[]): Promise<void> {
  const { client, config, print, signal } = guide;
  const spec = { image: { image } };
  const before = await client.call('imageStatus', cri.ImageStatusRequest.fromPartial(spec));
  const started = systemClock.monotonicMs();
  // An image that was there before the tour stays.
  if (before.image === undefined) {
    undos.push(() => client.call('removeImage', cri.RemoveImageRequest.fromPartial(spec)));
  }
  const over = new AbortController();
  const progress = showPullProgress({ config, say: print, signal: over.signal });
  const request = cri.PullImageRequest.fromPartial(spec);
  await client
    .call('pullImage', request, { timeoutMs: PULL_TIMEOUT_MS, signal })
    .finally(() => over.abort());
  await progress;
  const ms = Math.round(systemClock.monotonicMs() - started);
  const whence = guide.image === undefined ? ' from a registry on loopback' : '';
  print(`Pulled ${image}${whence} in ${ms} ms`);
}

async function runPod(
  { client, print }: Guide,
  pod: { readonly handler: string; readonly image: string; readonly logs: string },
  undos: Undo[],
): Promise<TourPod> {
  const started = systemClock.monotonicMs();
  // Not cut short by Ctrl-C: what a call that was left alone makes would stay.
  const call = { timeoutMs: STEP_TIMEOUT_MS };
  const config = cri.PodSandboxConfig.fromPartial({
    metadata: { name: `tour-${pod.handler}`, namespace: 'default', uid: randomUUID(), attempt: 0 },
    hostname: `tour-${pod.handler}`,
    logDirectory: pod.logs,
    linux: { securityContext: { namespaceOptions: { pid: cri.NamespaceMode.CONTAINER } } },
  });
  const { podSandboxId } = await client.call(
    'runPodSandbox',
    cri.RunPodSandboxRequest.fromPartial({ config, runtimeHandler: pod.handler }),
    call,
  );
  undos.push(() =>
    client.call('removePodSandbox', cri.RemovePodSandboxRequest.fromPartial({ podSandboxId })),
  );
  const container = cri.ContainerConfig.fromPartial({
    metadata: { name: 'web', attempt: 0 },
    image: { image: pod.image },
    logPath: 'web.log',
    linux: {},
  });
  const { containerId } = await client.call(
    'createContainer',
    cri.CreateContainerRequest.fromPartial({
      podSandboxId,
      config: container,
      sandboxConfig: config,
    }),
    call,
  );
  await client.call('startContainer', cri.StartContainerRequest.fromPartial({ containerId }), call);
  const { status } = await client.call(
    'podSandboxStatus',
    cri.PodSandboxStatusRequest.fromPartial({ podSandboxId }),
    call,
  );
  const ip = status?.network?.ip ?? '';
  const startMs = Math.round(systemClock.monotonicMs() - started);
  print(`Pod tour-${pod.handler} runs under handler ${pod.handler}, started in ${startMs} ms`);
  const logPath = join(pod.logs, 'web.log');
  return { handler: pod.handler, podId: podSandboxId, config, containerId, ip, logPath };
}

async function sideBySide(guide: Guide, pods: readonly TourPod[]): Promise<string[]> {
  const [kernels, pages] = await Promise.all([
    Promise.all(pods.map((pod) => uname(guide, pod))),
    Promise.all(pods.map((pod) => fetchPage(pod, guide))),
  ]);
  const logs = await Promise.all(pods.map((pod) => lastLogLine(pod.logPath)));
  return columns([
    { label: '', cells: pods.map((pod) => pod.handler) },
    { label: 'pod IP', cells: pods.map((pod) => pod.ip) },
    { label: 'uname -a', cells: kernels },
    { label: 'GET /', cells: pages },
    { label: 'log', cells: logs },
  ]);
}

/** The pods and containers as `cribus pods` and `cribus ps` print them. */
async function tables({ client }: Guide): Promise<readonly string[]> {
  const [pods, containers] = await Promise.all([
    client.call('listPodSandbox', cri.ListPodSandboxRequest.fromPartial({})),
    client.call('listContainers', cri.ListContainersRequest.fromPartial({})),
  ]);
  const nowNs = systemClock.nowNs();
  return [
    ...podTable(pods.items, nowNs),
    ...containerTable(containers.containers, pods.items, nowNs),
  ];
}

function whereNext({ stack, config, print }: TourOptions): void {
  const root = stack.directory === undefined ? '' : ` --root ${shellWord(stack.directory)}`;
  print('Where things are, and what to try next:');
  print(`  metrics     ${metricsAddresses(config)}`);
  print('  dashboards  deploy/grafana/cribus.json, fed by deploy/prometheus/prometheus.yml');
  print(`  crictl --runtime-endpoint unix://${config.gateway.socket} info`);
  print(`  bin/cribus status${root}`);
  print(`  bin/cribus tour --image docker.io/library/nginx:1${root}`);
}

/** `uname -a` in the pod; another image may have ended by then, or have no such program. */
async function uname(guide: Guide, pod: TourPod): Promise<string> {
  const request = { containerId: pod.containerId, cmd: ['uname', '-a'], timeout: 10n };
  try {
    const answer = await guide.client.call('execSync', cri.ExecSyncRequest.fromPartial(request), {
      timeoutMs: STEP_TIMEOUT_MS,
    });
    if (answer.exitCode === 0) return answer.stdout.toString().trim();
    throw new Failure(
      'wrong_state',
      `uname -a in pod tour-${pod.handler}: ${answer.stderr.toString()}`,
    );
  } catch (error) {
    if (guide.image === undefined || !isFailure(error)) throw error;
    return unameOnItsOwn(guide, pod, guide.image);
  }
}

/** As the command of one more container of the pod, read from its log. */
async function unameOnItsOwn(guide: Guide, pod: TourPod, image: string): Promise<string> {
  const { client, signal } = guide;
  const config = cri.ContainerConfig.fromPartial({
    metadata: { name: 'uname', attempt: 0 },
    image: { image },
    command: ['uname', '-a'],
    logPath: 'uname.log',
    linux: {},
  });
  const request = { podSandboxId: pod.podId, config, sandboxConfig: pod.config };
  try {
    const { containerId } = await client.call(
      'createContainer',
      cri.CreateContainerRequest.fromPartial(request),
      { timeoutMs: STEP_TIMEOUT_MS },
    );
    const started = cri.StartContainerRequest.fromPartial({ containerId });
    await client.call('startContainer', started, { timeoutMs: STEP_TIMEOUT_MS });
    const question = cri.ContainerStatusRequest.fromPartial({ containerId });
    for (let look = 0; look < EXIT_LOOKS_MAX; look += 1) {
      const { status } = await client.call('containerStatus', question);
      if (status?.state === cri.ContainerState.CONTAINER_EXITED) break;
      await systemClock.sleep(100, signal);
    }
    return await lastLogLine(join(dirname(pod.logPath), 'uname.log'));
  } catch (error) {
    if (!isFailure(error)) throw error;
    return '(there is no uname in this image)';
  }
}

/** The page's first line, asked for until the server is up or the budget is over. */
async function fetchPage(pod: TourPod, { signal, image }: Guide): Promise<string> {
  const budgetMs = image === undefined ? HTTP_BUDGET_MS : OTHER_HTTP_BUDGET_MS;
  const deadline = systemClock.monotonicMs() + budgetMs;
  const url = `http://${pod.ip.includes(':') ? `[${pod.ip}]` : pod.ip}:${WEB_PORT}/`;
  for (;;) {
    const answer = await get(url);
    if (!(answer instanceof Error)) return answer;
    if (systemClock.monotonicMs() > deadline) {
      // Not every image serves pages.
      if (image !== undefined) return `no answer (${answer.message})`;
      throw new Failure(
        'unavailable',
        `pod tour-${pod.handler} does not answer ${url}: ${answer.message}`,
      );
    }
    await systemClock.sleep(100, signal);
  }
}

function get(url: string): Promise<string | Error> {
  return new Promise((resolve) => {
    const outgoing = request(url, { timeout: 2_000 }, (answer) => {
      const chunks: Buffer[] = [];
      answer.on('data', (chunk: Buffer) => chunks.push(chunk));
      answer.on('end', () => {
        const first = Buffer.concat(chunks).toString().split('\n')[0] ?? '';
        resolve(`${answer.statusCode} ${first}`);
      });
      answer.on('error', resolve);
    });
    outgoing.on('timeout', () => outgoing.destroy(new Error('no answer within 2 s')));
    outgoing.on('error', resolve);
    outgoing.end();
  });
}

async function lastLogLine(path: string): Promise<string> {
  const text = (await readFileIfExists(path))?.toString('utf8') ?? '';
  const line = text.split('\n').findLast((one) => one !== '');
  // A CRI log line is `<time> <stream> <tag> <text>`.
  return line?.split(' ').slice(3).join(' ') ?? '(nothing yet)';
}
