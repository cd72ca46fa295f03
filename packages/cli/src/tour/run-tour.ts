// The tour: the same pod under each handler, the two kernels side by side, an answer over HTTP from
// each pod, their logs, and where to look next. Everything it makes is gone at its end.

import { randomUUID } from 'node:crypto';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { request } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Config } from '@cribus/chassis/config.ts';
import { Failure } from '@cribus/contracts/failure.ts';
import * as cri from '@cribus/contracts/gen/cri/v1/api.ts';
import { systemClock } from '@cribus/host/clock.ts';
import { type CriClient, createCriClient } from '../cri-client.ts';
import { containerTable, podTable } from '../cri-tables.ts';
import { shellWord } from '../shell-word.ts';
import type { Stack } from '../stack/open-stack.ts';
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
const COLUMNS_MAX = 100;
const LOG_LINES_SHOWN = 2;
const STEP_TIMEOUT_MS = 60_000;
const PULL_TIMEOUT_MS = 600_000;
const HTTP_BUDGET_MS = 10_000;

interface TourPod {
  readonly handler: string;
  readonly podId: string;
  readonly containerId: string;
  readonly ip: string;
  readonly logPath: string;
}

type Undo = () => Promise<unknown>;

/** Runs the tour. Raises the first Failure; what was made before it is removed all the same. */
export async function runTour(options: TourOptions): Promise<void> {
  const client = createCriClient(options.config.gateway.socket);
  const undos: Undo[] = [async () => client.close()];
  const guide: Guide = { ...options, client };
  try {
    const image = options.image ?? (await serveOwnImage(guide, undos));
    await pull(guide, image, undos);
    const logs = await mkdtemp(join(tmpdir(), 'cribus-tour-'));
    undos.push(() => rm(logs, { recursive: true, force: true }));
    const pods: TourPod[] = [];
    for (const handler of HANDLERS) {
      pods.push(await runPod(guide, { handler, image, logs: join(logs, handler) }, undos));
    }
    await show(guide, pods);
    whereNext(options);
  } finally {
    for (const undo of undos.reverse()) await undo();
  }
}

/** Builds the tour's image and serves it from a registry of its own; answers its reference. */
async function serveOwnImage({ print, signal }: Guide, undos: Undo[]): Promise<string> {
  const registry = await startRegistry();
  undos.push(() => registry.stop());
  const image = await buildWebImage(PAGE, signal);
  await pushImage(image, ['1'], { registry: registry.url, repository: 'tour/web', signal });
  const reference = `${registry.host}/tour/web:1`;
  print(`A registry on loopback serves ${reference}`);
  return reference;
}

async function pull({ client, print, signal }: Guide, image: string, undos: Undo[]): Promise<void> {
  const spec = { image: { image } };
  const before = await client.call('imageStatus', cri.ImageStatusRequest.fromPartial(spec));
  const started = systemClock.monotonicMs();
  const { imageRef } = await client.call('pullImage', cri.PullImageRequest.fromPartial(spec), {
    timeoutMs: PULL_TIMEOUT_MS,
    signal,
  });
  // An image that was there before the tour stays.
  if (before.image === undefined) {
    undos.push(() => client.call('removeImage', cri.RemoveImageRequest.fromPartial(spec)));
  }
  print(
    `Pulled as ${imageRef.slice(0, 19)} in ${Math.round(systemClock.monotonicMs() - started)} ms`,
  );
}

async function runPod(
  { client, print, signal }: Guide,
  pod: { readonly handler: string; readonly image: string; readonly logs: string },
  undos: Undo[],
): Promise<TourPod> {
  const started = systemClock.monotonicMs();
  const call = { timeoutMs: STEP_TIMEOUT_MS, signal };
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
  print(
    `Pod tour-${pod.handler} runs under handler ${pod.handler} at ${ip} ` +
      `(${Math.round(systemClock.monotonicMs() - started)} ms)`,
  );
  return {
    handler: pod.handler,
    podId: podSandboxId,
    containerId,
    ip,
    logPath: join(pod.logs, 'web.log'),
  };
}

async function show(options: Guide, pods: readonly TourPod[]): Promise<void> {
  const { print } = options;
  print('The same image, two kernels (uname -a inside each pod):');
  for (const pod of pods) print(row(pod, await uname(options, pod)));
  print('An HTTP request to each pod:');
  for (const pod of pods) print(row(pod, await fetchPage(pod, options)));
  print('Their logs:');
  for (const pod of pods) for (const line of await lastLogLines(pod)) print(row(pod, line));
  for (const line of await tables(options)) print(line);
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
  print('Try next:');
  print(`  crictl --runtime-endpoint unix://${config.gateway.socket} info`);
  print(`  cribus pull REF${root}   cribus tour --image REF${root}`);
  print('  dashboards: deploy/grafana/cribus.json, fed by deploy/prometheus/prometheus.yml');
}

function row(pod: TourPod, text: string): string {
  const line = `  ${pod.handler.padEnd(7)} ${text}`;
  return line.length > COLUMNS_MAX ? `${line.slice(0, COLUMNS_MAX - 1)}…` : line;
}

async function uname({ client }: Guide, pod: TourPod): Promise<string> {
  const answer = await client.call(
    'execSync',
    cri.ExecSyncRequest.fromPartial({
      containerId: pod.containerId,
      cmd: ['uname', '-a'],
      timeout: 10n,
    }),
    { timeoutMs: STEP_TIMEOUT_MS },
  );
  if (answer.exitCode !== 0) {
    throw new Failure(
      'wrong_state',
      `uname -a in pod tour-${pod.handler}: ${answer.stderr.toString()}`,
    );
  }
  return answer.stdout.toString().trim();
}

/** The page's first line, asked for until the server is up or the budget is over. */
async function fetchPage(pod: TourPod, { signal, image }: Guide): Promise<string> {
  const deadline =
    systemClock.monotonicMs() + (image === undefined ? HTTP_BUDGET_MS : HTTP_BUDGET_MS / 5);
  const url = `http://${pod.ip.includes(':') ? `[${pod.ip}]` : pod.ip}:${WEB_PORT}/`;
  for (;;) {
    const answer = await get(url);
    if (!(answer instanceof Error)) return `GET ${url}: ${answer}`;
    if (systemClock.monotonicMs() > deadline) {
      if (image !== undefined) return `GET ${url}: no answer (${answer.message})`;
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

async function lastLogLines(pod: TourPod): Promise<string[]> {
  const text = await readFile(pod.logPath, 'utf8');
  const lines = text.split('\n').filter((line) => line !== '');
  return lines.slice(-LOG_LINES_SHOWN).map((line) => line.replace(/^\S+ /, ''));
}
