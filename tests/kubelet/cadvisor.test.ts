// What a real kubelet with its default flags tells of containers where cribus answers its cAdvisor.

import assert from 'node:assert/strict';
import { eventually } from '@cribus/e2e/harness/stack.ts';
import { HANDLERS, HOST_KERNEL_HANDLERS } from '@cribus/e2e/harness/suite.ts';
import { before, describe, it } from 'mocha';
import { kubeletNode } from './harness/kubelet-node.ts';
import { pod, shell } from './harness/pod.ts';

/** The longest time between two looks of cAdvisor at a container, a few times over. */
const BUDGET_MS = 90_000;

interface PodUse {
  readonly podRef: { readonly name: string };
  readonly network?: { readonly name: string; readonly rxBytes?: number };
  readonly containers?: readonly {
    readonly name: string;
    readonly cpu?: { readonly usageNanoCores?: number };
    readonly memory?: { readonly workingSetBytes?: number };
  }[];
}

describe('the cAdvisor of a real kubelet, at the socket of CRI-O', () => {
  const config = '[kubelet]\ncadvisor_socket = "/var/run/crio/crio.sock"\n';
  const node = kubeletNode({ inCluster: true, config });
  const nameOf = (handler: string) => `seen-${handler}`;
  before(async () => {
    for (const handler of HANDLERS) {
      node.api.put('node.k8s.io/v1/runtimeclasses', { metadata: { name: handler }, handler });
      const script = 'dd if=/dev/zero of=/file bs=1M count=3; while :; do sleep 0.01; done';
      const containers = [shell('main', node.image, script)];
      node.api.runPod(pod(nameOf(handler), { runtimeClassName: handler, containers }));
    }
    await Promise.all(HANDLERS.map((handler) => node.ready(nameOf(handler))));
  });
  /** Samples of a family by pod and container: `seen-runc/main`. */
  const samplesOf = async (family: string) => {
    const text = await node.kubelet.get('/metrics/cadvisor');
    const samples = [...text.matchAll(/^(\w+)\{(.*)\} (\S+)/gm)].filter(
      ([, name]) => name === family,
    );
    return new Map(
      samples.map(([, , labels = '', value]) => {
        const [, container] = /\bcontainer="([^"]*)"/.exec(labels) ?? [];
        const [, name] = /\bpod="([^"]*)"/.exec(labels) ?? [];
        return [`${name}/${container}`, Number(value)];
      }),
    );
  };
  const above = (bytes: number, value: number | undefined, what: string) => {
    if (value === undefined || value <= bytes) throw new Error(`${what}: ${value}`);
  };

  it('has figures of each container of runc and crun in /metrics/cadvisor, and of a Sentry as the pod', async () => {
    await eventually(
      'the figures are there',
      async () => {
        const cpu = await samplesOf('container_cpu_usage_seconds_total');
        const memory = await samplesOf('container_memory_working_set_bytes');
        for (const handler of HOST_KERNEL_HANDLERS) {
          above(0.001, cpu.get(`${nameOf(handler)}/main`), handler);
          above(50_000, memory.get(`${nameOf(handler)}/main`), handler);
        }
        above(0.1, cpu.get(`${nameOf('gvisor')}/POD`), 'gvisor');
        above(5_000_000, memory.get(`${nameOf('gvisor')}/POD`), 'gvisor');
        assert.equal(cpu.has(`${nameOf('gvisor')}/main`), false, 'no zeros');
        return true;
      },
      BUDGET_MS,
    );
  });

  it('has the network of each pod in /metrics/cadvisor and in the summary, beside figures of each container', async () => {
    await eventually(
      'the figures are there',
      async () => {
        const received = await samplesOf('container_network_receive_bytes_total');
        const { pods } = JSON.parse(await node.kubelet.get('/stats/summary')) as {
          readonly pods: readonly PodUse[];
        };
        for (const handler of HANDLERS) {
          const name = nameOf(handler);
          above(0, received.get(`${name}/POD`), name);
          const use = pods.find(({ podRef }) => podRef.name === name);
          above(0, use?.network?.rxBytes, name);
          const main = use?.containers?.find((one) => one.name === 'main');
          above(0, main?.cpu?.usageNanoCores, name);
          above(50_000, main?.memory?.workingSetBytes, name);
        }
        return true;
      },
      BUDGET_MS,
    );
  });

  it('finds them again after a restart of the kubelet, with what a container has written meanwhile', async () => {
    await node.kubelet.stop();
    await node.kubelet.start();
    await eventually(
      'the figures are there',
      async () => {
        const used = await samplesOf('container_fs_usage_bytes');
        for (const handler of HOST_KERNEL_HANDLERS) {
          above(3_000_000, used.get(`${nameOf(handler)}/main`), handler);
        }
        return true;
      },
      BUDGET_MS,
    );
  });
});
