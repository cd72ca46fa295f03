// `cribus pods`: every pod, ready or not.

import * as cri from '@cribus/contracts/gen/cri/v1/api.ts';
import { systemClock } from '@cribus/host/clock.ts';
import type { Invocation } from '../arguments.ts';
import { podTable } from '../cri-tables.ts';
import { withStackClient } from '../stack/stack-client.ts';

export async function runPods(invocation: Invocation): Promise<number> {
  return withStackClient(invocation, async (client) => {
    const request = cri.ListPodSandboxRequest.fromPartial({});
    const answer = await client.call('listPodSandbox', request);
    for (const line of podTable(answer.items, systemClock.nowNs())) console.log(line);
    return 0;
  });
}
