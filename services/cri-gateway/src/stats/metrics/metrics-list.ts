// The metrics of every pod of the node, pod by pod, so that a large node holds nothing else up.

import { type PodSandboxMetrics, PodSandboxState } from '@cribus/contracts/gen/cri/v1/api.ts';
import { ContainerPhase } from '@cribus/contracts/gen/node/v1/records.ts';
import type { Gateway } from '../../gateway.ts';
import { isContainerShown } from '../../view/cri-container.ts';
import { sandboxState } from '../../view/cri-sandbox.ts';
import { chooseFamilies, podSandboxMetrics } from './pod-metrics.ts';

/** Some 30 KB each: with more containers the answer would come near the 16 MiB of a message. */
const CONTAINERS_WITH_EXTRAS_MAX = 200;
/** Between so many pods the event loop gets its turn: some 10 ms. */
const PODS_AT_ONCE = 8;

/** Of READY sandboxes. Raises unavailable until the view is complete. */
export async function* podMetricsOf(
  gateway: Gateway,
  signal: AbortSignal,
): AsyncGenerator<PodSandboxMetrics> {
  const { view, statistics, clock } = gateway;
  gateway.feed.requirePrimed();
  await statistics.recent({ details: true, signal });
  const extra = view.containers().length <= CONTAINERS_WITH_EXTRAS_MAX;
  const families = chooseFamilies({ extra });
  let done = 0;
  for (const { record } of view.sandboxes()) {
    if (sandboxState(record) !== PodSandboxState.SANDBOX_READY) continue;
    if (done > 0 && done % PODS_AT_ONCE === 0) await clock.sleep(0, signal);
    done += 1;
    const containers = view
      .containersOf(record.id)
      .filter((one) => isContainerShown(one) && one.phase === ContainerPhase.RUNNING)
      .map((one) => ({
        record: one,
        sample: statistics.container(one),
        image: view.image(one.imageId),
      }));
    const sample = statistics.sandbox(record.id);
    yield podSandboxMetrics({ record, sample, containers }, families);
  }
}
