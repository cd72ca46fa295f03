// What a real kubelet tells of pods' use, and the other ways in which it can ask the runtime: each is a
// feature gate of its own.

import assert from 'node:assert/strict';
import { fetchText } from '@cribus/e2e/harness/http.ts';
import { eventually } from '@cribus/e2e/harness/stack.ts';
import { HANDLERS } from '@cribus/e2e/harness/suite.ts';
import { before, describe, it } from 'mocha';
import { kubeletNode } from './harness/kubelet-node.ts';
import { pod, shell } from './harness/pod.ts';

interface Use {
  readonly usageNanoCores?: number;
  readonly usageCoreNanoSeconds?: number;
  readonly workingSetBytes?: number;
  readonly usedBytes?: number;
}

interface PodUse {
  readonly podRef: { readonly name: string };
  readonly cpu?: Use;
  readonly memory?: Use;
  readonly network?: {
    readonly name: string;
    readonly rxBytes?: number;
    readonly txBytes?: number;
  };
  readonly containers?: readonly {
    readonly name: string;
    readonly cpu?: Use;
    readonly memory?: Use;
    readonly rootfs?: Use;
    readonly logs?: Use;
  }[];
}

describe('what a real kubelet tells of pods', () => {
  const node = kubeletNode({ inCluster: true });
  const names = HANDLERS.map((handler) => `busy-${handler}`);
  before(async () => {
    for (const handler of HANDLERS) {
      const name = `busy-${handler}`;
      node.api.put('node.k8s.io/v1/runtimeclasses', { metadata: { name: handler }, handler });
      const script =
        'dd if=/dev/zero of=/file bs=1M count=3; i=0; while [ $i -lt 1500000 ]; do i=$((i+1)); done; while :; do echo busy; sleep 0.5; done';
      const containers = [shell('main', node.image, script)];
      node.api.runPod(pod(name, { runtimeClassName: handler, containers }));
    }
    await Promise.all(names.map((name) => node.ready(name)));
  });
  const useOf = async (name: string) => {
    const summary = JSON.parse(await node.kubelet.get('/stats/summary')) as {
      readonly pods: readonly PodUse[];
    };
    return summary.pods.find(({ podRef }) => podRef.name === name);
  };
  /** Names of the families of which a pod's container has a sample above zero. */
  const families = async (path: string, name: string) => {
    const text = await node.kubelet.get(path);
    return [...text.matchAll(/^(\w+)\{(.*)\} (\S+)/gm)]
      .filter(
        ([, , labels = '']) =>
          labels.includes('container="main"') && labels.includes(`pod="${name}"`),
      )
      .filter(([, , , value]) => Number(value) > 0)
      .map(([, family]) => family);
  };
  const positive = (...values: readonly (number | undefined)[]) =>
    values.every((value) => value !== undefined && value > 0);
  const startWith = async (...gates: readonly string[]) => {
    await node.kubelet.stop();
    await node.kubelet.start(Object.fromEntries(gates.map((gate) => [gate, true])));
  };

  it('has CPU, memory, root filesystem and log of each container in its summary and in /metrics/resource', async () => {
    for (const name of names) {
      await eventually(
        `${name} has figures`,
        async () => {
          const use = await useOf(name);
          const main = use?.containers?.find((one) => one.name === 'main');
          const of = [
            main?.cpu?.usageCoreNanoSeconds,
            main?.memory?.workingSetBytes,
            main?.rootfs?.usedBytes,
            main?.logs?.usedBytes,
          ];
          if (!positive(...of)) throw new Error(JSON.stringify(use));
          const resource = await families('/metrics/resource', name);
          return resource.includes('container_memory_working_set_bytes');
        },
        60_000,
      );
    }
  });

  it('has all of it from the runtime with PodAndContainerStatsFromCRI, the network of pods and /metrics/cadvisor too', async () => {
    await startWith('PodAndContainerStatsFromCRI');
    for (const name of names) {
      await eventually(
        `${name} has figures`,
        async () => {
          const use = await useOf(name);
          const main = use?.containers?.find((one) => one.name === 'main');
          const of = [
            use?.cpu?.usageCoreNanoSeconds,
            use?.memory?.workingSetBytes,
            use?.network?.rxBytes,
            main?.cpu?.usageNanoCores,
            main?.memory?.workingSetBytes,
            main?.rootfs?.usedBytes,
          ];
          if (!positive(...of)) throw new Error(JSON.stringify(use));
          const cadvisor = await families('/metrics/cadvisor', name);
          const wanted = [
            'container_cpu_usage_seconds_total',
            'container_memory_working_set_bytes',
          ];
          if (!wanted.every((family) => cadvisor.includes(family)))
            throw new Error(cadvisor.join());
          return true;
        },
        60_000,
      );
    }
  });

  it('learns of an end by an event with EventedPLEG, as it asks for lists rarely then', async () => {
    await startWith('EventedPLEG');
    await eventually('it has subscribed', async () =>
      /^kubelet_evented_pleg_connection_success_count [1-9]/m.test(
        await node.kubelet.get('/metrics'),
      ),
    );
    for (const handler of HANDLERS) {
      const containers = [shell('main', node.image, 'sleep 1; exit 0')];
      const name = `short-${handler}`;
      node.api.runPod(pod(name, { runtimeClassName: handler, restartPolicy: 'Never', containers }));
      await node.until('it is done', name, ({ status }) => status.phase === 'Succeeded', 30_000);
    }
  });

  it('takes lists as streams with CRIListStreaming', async () => {
    await startWith('CRIListStreaming');
    await Promise.all(names.map((name) => node.ready(name)));
    const config = await node.stack.cribus('status', '--json');
    const { metrics } = JSON.parse(config.stdout) as {
      readonly metrics: Readonly<Record<string, string>>;
    };
    const text = await fetchText(metrics['cri-gateway'] ?? '');
    const counts = [
      ...text.matchAll(/^cribus_cri_requests_total\{.*verb="Stream(\w+)".*\} (\d+)/gm),
    ]
      .filter(([line]) => line.includes('code="OK"'))
      .map(([, verb]) => verb);
    for (const verb of ['PodSandboxes', 'Containers', 'Images'])
      assert.ok(counts.includes(verb), text);
  });
});
