// `cribus ps`: running containers, or with --all every one.

import * as cri from '@cribus/contracts/gen/cri/v1/api.ts';
import { systemClock } from '@cribus/host/clock.ts';
import type { Invocation } from '../arguments.ts';
import { containerTable } from '../cri-tables.ts';
import { withStackClient } from '../stack/stack-client.ts';

export async function runPs(invocation: Invocation): Promise<number> {
  const filter = invocation.flags.has('all')
    ? {}
    : { state: { state: cri.ContainerState.CONTAINER_RUNNING } };
  return withStackClient(invocation, async (client) => {
    const [containers, pods] = await Promise.all([
      client.call('listContainers', cri.ListContainersRequest.fromPartial({ filter })),
      client.call('listPodSandbox', cri.ListPodSandboxRequest.fromPartial({})),
    ]);
    const lines = containerTable(containers.containers, pods.items, systemClock.nowNs());
    for (const line of lines) console.log(line);
    return 0;
  });
}
