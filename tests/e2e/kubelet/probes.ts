// The kubelet's probes of containers: what each finds, and what is concluded from how often.

import { get } from 'node:http';
import { createConnection } from 'node:net';
import { ExecSyncRequest } from '@cribus/contracts/gen/cri/v1/api.ts';
import { hasCode } from '../harness/cri.ts';
import type { KubeletClient } from './client-checks.ts';
import type { PodManifest, Probe } from './manifest.ts';
import { isRunning, latest, type PodStatus } from './pod-actions.ts';

const PROBE_TIMEOUT_S = 1n;
const FAILURE_THRESHOLD = 3;
const GRPC_DEADLINE_EXCEEDED = 4;

/** What is judged by one probe: by which container, reached at which host. */
interface Probed {
  readonly containerId: string;
  readonly host: string;
  readonly probe: Probe;
}

export class Prober {
  /** Ids of containers. */
  readonly results = {
    failedLiveness: new Set<string>(),
    failedStartup: new Set<string>(),
    started: new Set<string>(),
    ready: new Set<string>(),
  };
  readonly #client: KubeletClient;
  readonly #failures = new Map<string, number>();

  constructor(client: KubeletClient) {
    this.#client = client;
  }

  /** Probes each running container of the pod once; startup first, and nothing else until then. */
  async probeAll(pod: PodManifest, status: PodStatus): Promise<void> {
    const host = hostOf(status);
    for (const container of [...pod.initContainers, ...pod.containers]) {
      const last = latest(status, container.name);
      if (!isRunning(last)) continue;
      const containerId = last.id;
      const { startup, liveness, readiness } = container;
      const { started, ready, failedStartup, failedLiveness } = this.results;
      if (startup !== undefined && !started.has(containerId)) {
        const probed = { containerId, host, probe: startup };
        await this.#judge(probed, { good: started, bad: failedStartup });
        continue;
      }
      if (liveness !== undefined) {
        const probed = { containerId, host, probe: liveness };
        await this.#judge(probed, { good: new Set(), bad: failedLiveness });
      }
      if (readiness !== undefined) {
        const now = await this.probe({ containerId, host, probe: readiness });
        if (now === 'success') ready.add(containerId);
        else if (now === 'failure') ready.delete(containerId);
      }
    }
  }

  async #judge(
    probed: Probed,
    { good, bad }: { readonly good: Set<string>; readonly bad: Set<string> },
  ): Promise<void> {
    const now = await this.probe(probed);
    if (now === 'unknown') return;
    const { containerId } = probed;
    const failures = now === 'success' ? 0 : (this.#failures.get(containerId) ?? 0) + 1;
    this.#failures.set(containerId, failures);
    if (now === 'success') good.add(containerId);
    else if (failures >= (probed.probe.failureThreshold ?? FAILURE_THRESHOLD)) bad.add(containerId);
  }

  /** An error other than the time-out tells nothing, so the kubelet throws the result away. */
  async probe({ containerId, host, probe }: Probed): Promise<'success' | 'failure' | 'unknown'> {
    if ('exec' in probe) {
      const request = { containerId, cmd: [...probe.exec], timeout: PROBE_TIMEOUT_S };
      try {
        const asked = ExecSyncRequest.fromPartial(request);
        const { exitCode } = await this.#client.ask('execSync', asked);
        return exitCode === 0 ? 'success' : 'failure';
      } catch (error) {
        return hasCode(error, GRPC_DEADLINE_EXCEEDED) ? 'failure' : 'unknown';
      }
    }
    try {
      if ('tcpSocket' in probe) {
        await connectTo(host, probe.tcpSocket.port);
        return 'success';
      }
      const { port, path } = probe.httpGet;
      const status = await statusOf(`http://${host}:${port}${path}`);
      return status >= 200 && status < 400 ? 'success' : 'failure';
    } catch {
      return 'failure';
    }
  }
}

/** The pod's address, or the node's own for a pod on the host's network. */
export function hostOf(status: PodStatus): string {
  return status.sandboxes[0]?.network?.ip || '127.0.0.1';
}

function statusOf(url: string): Promise<number> {
  return new Promise((resolve, reject) => {
    const request = get(url, { timeout: 1_000, agent: false }, (response) => {
      response.resume();
      resolve(response.statusCode ?? 0);
    });
    request.on('timeout', () => request.destroy(new Error(`no answer from ${url}`)));
    request.on('error', reject);
  });
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
