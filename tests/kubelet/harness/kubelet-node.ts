// One node for the tests of a describe block: a stack, a registry and a kubelet. When they are over the
// kubelet must have taken its pods down, and the host must be as it was.

import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { ListContainersRequest, ListPodSandboxRequest } from '@cribus/contracts/gen/cri/v1/api.ts';
import { startTestRegistry, type TestRegistry } from '@cribus/e2e/harness/images.ts';
import { assertNothingLeaked, snapshotHost } from '@cribus/e2e/harness/leaks.ts';
import { eventually, type Stack, startStack } from '@cribus/e2e/harness/stack.ts';
import { removeAllPods } from '@cribus/e2e/harness/suite.ts';
import { detectCgroups } from '@cribus/host/cgroups.ts';
import { unmountTree } from '@cribus/host/mounts.ts';
import { after, afterEach, before } from 'mocha';
import { createKubelet, type Kubelet, NODE } from './kubelet.ts';
import { type ApiServer, startApiServer } from './played-api-server.ts';
import { type ContainerStatus, isReady, type Pod, type PodView, statusOf } from './pod.ts';

export interface NodeOptions {
  /** The handler of pods that name none, as all do where no API server tells of RuntimeClasses. */
  readonly handler?: string;
  /** Further tables of cribus.toml. */
  readonly config?: string;
  readonly featureGates?: Readonly<Record<string, boolean>>;
  /** True for a kubelet that has an API server, a played one. */
  readonly inCluster?: boolean;
}

export interface KubeletNode {
  readonly stack: Stack;
  readonly kubelet: Kubelet;
  /** Fails where the kubelet stands alone. */
  readonly api: ApiServer;
  readonly registry: TestRegistry;
  /** The reference of busybox, which nobody has pulled yet. */
  readonly image: string;
  /** A directory of the test, for volumes of the host. */
  readonly directory: string;
  /** Writes the manifest; the answer is the pod's name with the node's. */
  place(pod: Pod): string;
  /** As the kubelet reports it now. */
  view(name: string): Promise<PodView | undefined>;
  /** Polls what the kubelet reports of a pod. */
  until(
    what: string,
    name: string,
    holds: (view: PodView) => boolean | undefined,
    budgetMs?: number,
  ): Promise<PodView>;
  ready(name: string): Promise<PodView>;
  /** Until the container has a status that holds. */
  container(
    what: string,
    of: { readonly pod: string; readonly container: string },
    holds: (status: ContainerStatus) => boolean | undefined,
  ): Promise<ContainerStatus>;
  /** Removes a manifest, and waits until neither the kubelet nor the runtime knows the pod. */
  remove(pod: Pod): Promise<void>;
  log(name: string, container: string, query?: string): Promise<string>;
}

const POD_BUDGET_MS = 60_000;
/** Of the kubelet's log, for a test that failed. */
const COMPLAINTS_MAX = 20;

interface Running {
  readonly stack: Stack;
  readonly kubelet: Kubelet;
  readonly api: ApiServer | undefined;
  readonly registry: TestRegistry;
  readonly directory: string;
}

/** To be called inside a describe; what it answers can be read once its tests run. */
export function kubeletNode(options: NodeOptions = {}): KubeletNode {
  const cgroup = process.env['CRIBUS_KUBELET_CGROUP'] ?? '';
  assert.ok(cgroup !== '', 'run it by npm run e2e:kubelet, in namespaces of its own');
  const undos: (() => Promise<void> | void)[] = [];
  const placed = new Set<string>();
  let running: Running | undefined;
  const get = (): Running => {
    assert.ok(running !== undefined, 'the node did not start');
    return running;
  };
  before(async () => {
    const host = snapshotHost();
    undos.push(() => assertNothingLeaked(host));
    running = await startNode(options, cgroup, undos);
  });
  afterEach(function () {
    if (this.currentTest?.state !== 'failed' || running === undefined) return;
    console.log(
      running.kubelet.log().split('\n').filter(isComplaint).slice(-COMPLAINTS_MAX).join('\n'),
    );
  });
  after(async () => {
    if (running !== undefined) {
      for (const name of placed) running.kubelet.remove(name);
      for (const name of running.api?.podNames() ?? []) running.api?.deletePod(name);
      await withoutPods(running);
    }
    for (const undo of undos.toReversed()) await undo();
  });
  const view = async (name: string) =>
    (await get().kubelet.pods()).find(({ metadata }) => metadata.name === name);
  const until: KubeletNode['until'] = (what, name, holds, budgetMs = POD_BUDGET_MS) =>
    eventually(
      `${name}: ${what}`,
      async () => {
        const found = await view(name);
        if (found !== undefined && holds(found) === true) return found;
        throw new Error(JSON.stringify(found?.status));
      },
      budgetMs,
    );
  return {
    get stack() {
      return get().stack;
    },
    get kubelet() {
      return get().kubelet;
    },
    get api() {
      const { api } = get();
      assert.ok(api !== undefined, 'the kubelet stands alone');
      return api;
    },
    get registry() {
      return get().registry;
    },
    get image() {
      return get().registry.busybox;
    },
    get directory() {
      return get().directory;
    },
    place: (pod) => {
      placed.add(pod.metadata.name);
      get().kubelet.place(pod);
      return `${pod.metadata.name}-${NODE}`;
    },
    view,
    until,
    ready: (name) => until('it is ready', name, isReady),
    container: async (what, of, holds) => {
      const ofContainer = (found: PodView) => statusOf(found, of.container);
      const found = await until(what, of.pod, (one) => {
        const status = ofContainer(one);
        return status !== undefined && holds(status);
      });
      const status = ofContainer(found);
      assert.ok(status !== undefined);
      return status;
    },
    remove: async ({ metadata: { name } }) => {
      placed.delete(name);
      get().kubelet.remove(name);
      await eventually(
        `${name} is gone`,
        async () => {
          const { items } = await get().stack.cri.call(
            'listPodSandbox',
            ListPodSandboxRequest.fromPartial({}),
          );
          const left = items.filter(({ metadata }) => metadata?.name === `${name}-${NODE}`);
          return (
            (await view(`${name}-${NODE}`)) === undefined && left.every(({ state }) => state === 1)
          );
        },
        POD_BUDGET_MS,
      );
    },
    log: (name, container, query = '') =>
      get().kubelet.get(`/containerLogs/default/${name}/${container}${query}`),
  };
}

async function startNode(
  options: NodeOptions,
  cgroup: string,
  undos: (() => Promise<void> | void)[],
): Promise<Running> {
  const directory = mkdtempSync(join(tmpdir(), 'kubelet-'));
  undos.push(() => rmSync(directory, { recursive: true }));
  const cgroups = detectCgroups();
  cgroups.create(cgroup);
  undos.push(() => cgroups.remove(cgroup));
  const registry = await startTestRegistry();
  undos.push(() => registry.stop());
  const stack = await startStack({
    config: `[runtimes]
default = "${options.handler ?? 'runc'}"
[cgroups]
root = "${cgroup}/cribus"
${options.config ?? ''}`,
  });
  undos.push(() => stack.destroy());
  // What a test that failed half-way has left to the kubelet, which is no more.
  undos.push(() => removeAllPods(stack.cri));
  const api = options.inCluster === true ? await startApiServer(directory) : undefined;
  undos.push(() => api?.close());
  mkdirSync(join(directory, 'volumes'));
  const kubelet = await createKubelet({
    directory,
    endpoint: stack.cri.endpoint,
    cgroup,
    ...(api === undefined ? {} : { kubeconfig: api.kubeconfig }),
  });
  undos.push(() => kubelet.close());
  // The kubelet's bind mount of its own directory, and volumes that it had no time for.
  undos.push(() => {
    unmountTree(directory);
  });
  undos.push(() => kubelet.stop());
  await kubelet.start(options.featureGates);
  return { stack, kubelet, api, registry, directory };
}

/** A line of a warning or an error (klog). */
function isComplaint(line: string): boolean {
  return /^[EW]\d{4} /.test(line);
}

/** Until the kubelet has ended every pod, and no container is left in the runtime. */
async function withoutPods({ kubelet, stack }: Running): Promise<void> {
  await eventually(
    'the kubelet has no pods',
    async () => {
      const left = await kubelet.pods();
      if (left.length > 0) throw new Error(left.map(({ metadata }) => metadata.name).join());
      const { containers } = await stack.cri.call(
        'listContainers',
        ListContainersRequest.fromPartial({ filter: { state: { state: 1 } } }),
      );
      return containers.length === 0;
    },
    POD_BUDGET_MS,
  );
}
