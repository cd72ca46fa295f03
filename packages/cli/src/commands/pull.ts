// `cribus pull REF`: pulls an image through the gateway, says how far it is, and what came of it.

import * as cri from '@cribus/contracts/gen/cri/v1/api.ts';
import { systemClock } from '@cribus/host/clock.ts';
import type { Invocation } from '../arguments.ts';
import { showPullProgress } from '../pull-progress.ts';
import { withStackClient } from '../stack/stack-client.ts';
import { size } from '../table.ts';

export async function runPull(invocation: Invocation): Promise<number> {
  const reference = invocation.operands[0] ?? '';
  const image = { image: reference };
  return withStackClient(invocation, async (client, config) => {
    const began = systemClock.monotonicMs();
    console.log(`Pulling ${reference}`);
    // The pull has no total: its owner ends it when no more bytes come.
    const request = cri.PullImageRequest.fromPartial({ image });
    const over = new AbortController();
    const say = (line: string) => console.log(line);
    const progress = showPullProgress({ config, say, signal: over.signal });
    const { imageRef } = await client
      .call('pullImage', request, { timeoutMs: 0 })
      .finally(() => over.abort());
    await progress;
    const question = cri.ImageStatusRequest.fromPartial({ image: { image: imageRef } });
    const status = await client.call('imageStatus', question);
    const seconds = ((systemClock.monotonicMs() - began) / 1000).toFixed(1);
    console.log(`Pulled in ${seconds} s (${size(status.image?.size ?? 0n)}): ${imageRef}`);
    return 0;
  });
}
