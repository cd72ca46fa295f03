// The kubelet of the PATH as a process: its configuration, its start and end, and its API.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, mkdirSync, openSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { request } from 'node:http';
import { createServer, type Server } from 'node:net';
import { join } from 'node:path';
import { connect } from 'node:tls';
import { eventually } from '@cribus/e2e/harness/stack.ts';
import type { Pod, PodView } from './pod.ts';

/** The name of the node, and the address that the network namespace of the tests has. */
export const NODE = 'node';
export const NODE_IP = '192.0.2.10';

const START_BUDGET_MS = 60_000;
const STOP_BUDGET_MS = 30_000;

/**
 * The kubelet sets three sysctls of the whole machine. In a mount namespace of its own, whose other
 * mounts it shares, it finds them as it wants them.
 */
const HIDE_SYSCTLS = `
set -e
mount --make-private /proc
for setting in vm/overcommit_memory=1 kernel/panic=10 kernel/panic_on_oops=1; do
  file="$0/$(basename "\${setting%=*}")"
  echo "\${setting#*=}" >"$file"
  mount --bind "$file" "/proc/sys/\${setting%=*}"
done
exec "$@"`;

export interface KubeletOptions {
  /** An existing directory for everything that it writes. */
  readonly directory: string;
  readonly endpoint: string;
  /** An existing cgroup, above those of the pods. */
  readonly cgroup: string;
  /** Of an API server; without one the kubelet stands alone. */
  readonly kubeconfig?: string;
}

export interface KubeletAnswer {
  readonly status: number;
  readonly body: string;
}

export interface Kubelet {
  /** Its API in plain HTTP, with every request allowed: `http://127.0.0.1:port`. */
  readonly url: string;
  readonly readOnlyUrl: string;
  readonly podLogs: string;
  start(featureGates?: Readonly<Record<string, boolean>>): Promise<void>;
  /** Ends the process; pods go on. */
  stop(): Promise<void>;
  ask(method: string, path: string): Promise<KubeletAnswer>;
  /** The body of an answer of 200; fails with any other one. */
  get(path: string): Promise<string>;
  pods(): Promise<readonly PodView[]>;
  /** Writes or replaces the manifest of a static pod. */
  place(pod: Pod): void;
  remove(name: string): void;
  /** What it has logged in all its lives. */
  log(): string;
  /** Closes what is not the process. */
  close(): void;
}

/** Nothing is started yet. */
export async function createKubelet(options: KubeletOptions): Promise<Kubelet> {
  const { directory } = options;
  const manifests = join(directory, 'manifests');
  const podLogs = join(directory, 'pod-logs');
  for (const path of [manifests, podLogs]) mkdirSync(path, { recursive: true });
  const ports = { secure: await freePort(), readOnly: await freePort() };
  const bridge = await plainBridge(ports.secure);
  const logFile = join(directory, 'kubelet.log');
  let ending: Promise<void> | undefined;
  let pid = 0;
  const url = `http://127.0.0.1:${bridge.port}`;
  const get = async (path: string) => {
    const { status, body } = await ask(url, 'GET', path);
    assert.equal(status, 200, `GET ${path}: ${status} ${body}`);
    return body;
  };
  const manifestOf = (name: string) => join(manifests, `${name}.json`);
  return {
    url,
    readOnlyUrl: `http://127.0.0.1:${ports.readOnly}`,
    podLogs,
    start: async (featureGates = {}) => {
      const config = join(directory, 'config.json');
      writeFileSync(
        config,
        JSON.stringify(configuration({ ...options, manifests, podLogs, ports, featureGates })),
      );
      const output = openSync(logFile, 'a');
      const hidden = ['--mount', '--propagation', 'unchanged', 'sh', '-c', HIDE_SYSCTLS, directory];
      const child = spawn('unshare', [...hidden, 'kubelet', ...flags(options, config)], {
        stdio: ['ignore', output, output],
      });
      closeSync(output);
      let ended = false;
      ending = once(child, 'exit').then(() => {
        ended = true;
      });
      pid = child.pid ?? 0;
      await eventually(
        'the kubelet is healthy',
        async () => {
          if (ended) return true;
          return (await ask(url, 'GET', '/healthz')).status === 200;
        },
        START_BUDGET_MS,
      );
      assert.ok(!ended, `the kubelet ended: ${readFileSync(logFile, 'utf8').slice(-3000)}`);
    },
    stop: async () => {
      if (ending === undefined) return;
      process.kill(pid, 'SIGTERM');
      const late = setTimeout(() => process.kill(pid, 'SIGKILL'), STOP_BUDGET_MS);
      await ending;
      clearTimeout(late);
      ending = undefined;
    },
    ask: (method, path) => ask(url, method, path),
    get,
    pods: async () => {
      const { items } = JSON.parse(await get('/pods')) as { items: readonly PodView[] | null };
      return items ?? [];
    },
    place: (pod) => writeFileSync(manifestOf(pod.metadata.name), JSON.stringify(pod)),
    remove: (name) => rmSync(manifestOf(name)),
    log: () => readFileSync(logFile, 'utf8'),
    close: () => bridge.server.close(),
  };
}

function flags({ directory, kubeconfig }: KubeletOptions, config: string): string[] {
  return [
    `--config=${config}`,
    `--root-dir=${join(directory, 'root')}`,
    `--cert-dir=${join(directory, 'pki')}`,
    `--hostname-override=${NODE}`,
    `--node-ip=${NODE_IP}`,
    ...(kubeconfig === undefined ? [] : [`--kubeconfig=${kubeconfig}`]),
    '--v=2',
  ];
}

interface ConfigurationParts extends KubeletOptions {
  readonly manifests: string;
  readonly podLogs: string;
  readonly ports: { readonly secure: number; readonly readOnly: number };
  readonly featureGates: Readonly<Record<string, boolean>>;
}

/** KubeletConfiguration, v1beta1: as on any node, but quick, on loopback and open. */
function configuration(parts: ConfigurationParts): object {
  return {
    apiVersion: 'kubelet.config.k8s.io/v1beta1',
    kind: 'KubeletConfiguration',
    containerRuntimeEndpoint: parts.endpoint,
    staticPodPath: parts.manifests,
    podLogsDir: parts.podLogs,
    volumePluginDir: join(parts.directory, 'volume-plugins'),
    cgroupRoot: parts.cgroup,
    // An API server that is played speaks no protobuf.
    contentType: 'application/json',
    address: '127.0.0.1',
    port: parts.ports.secure,
    readOnlyPort: parts.ports.readOnly,
    healthzPort: 0,
    authentication: { anonymous: { enabled: true }, webhook: { enabled: false } },
    authorization: { mode: 'AlwaysAllow' },
    // This machine may have swap, cgroup v1 and a full disk; none of it is what is tested.
    failSwapOn: false,
    failCgroupV1: false,
    evictionHard: {
      'memory.available': '1Mi',
      'nodefs.available': '1Mi',
      'nodefs.inodesFree': '1',
      'imagefs.available': '1Mi',
      'imagefs.inodesFree': '1',
    },
    imageGCHighThresholdPercent: 100,
    makeIPTablesUtilChains: false,
    enableControllerAttachDetach: false,
    syncFrequency: '2s',
    fileCheckFrequency: '1s',
    nodeStatusUpdateFrequency: '2s',
    configMapAndSecretChangeDetectionStrategy: 'Get',
    serializeImagePulls: false,
    containerLogMaxSize: '16Ki',
    containerLogMaxFiles: 50,
    containerLogMonitorInterval: '3s',
    crashLoopBackOff: { maxContainerRestartPeriod: '1s' },
    featureGates: { KubeletCrashLoopBackOffMax: true, ...parts.featureGates },
  };
}

function ask(url: string, method: string, path: string): Promise<KubeletAnswer> {
  return new Promise((resolve, reject) => {
    const asking = request(`${url}${path}`, { method, timeout: 60_000 }, (response) => {
      const pieces: Buffer[] = [];
      response.on('data', (piece: Buffer) => pieces.push(piece));
      response.on('error', reject);
      response.on('end', () =>
        resolve({ status: response.statusCode ?? 0, body: Buffer.concat(pieces).toString() }),
      );
    });
    asking.on('timeout', () => asking.destroy(new Error(`${method} ${path} took too long`)));
    asking.on('error', reject);
    asking.end();
  });
}

/** A port that is free now. */
function freePort(): Promise<number> {
  return listen(createServer()).then(({ server, port }) => {
    return new Promise((resolve) => server.close(() => resolve(port)));
  });
}

function listen(server: Server): Promise<{ readonly server: Server; readonly port: number }> {
  return new Promise((resolve, reject) => {
    server.on('error', reject);
    server.listen(0, '127.0.0.1', () => {
      const address = server.address();
      resolve({ server, port: typeof address === 'object' ? (address?.port ?? 0) : 0 });
    });
  });
}

/** Takes TLS, with the certificate that the kubelet has made for itself, off its API. */
function plainBridge(securePort: number): ReturnType<typeof listen> {
  const server = createServer({ allowHalfOpen: true }, (plain) => {
    const secure = connect({ host: '127.0.0.1', port: securePort, rejectUnauthorized: false });
    plain.pipe(secure).pipe(plain);
    plain.on('error', () => secure.destroy());
    secure.on('error', () => plain.destroy());
    plain.on('close', () => secure.destroy());
    secure.on('close', () => plain.destroy());
  });
  return listen(server);
}
