// `cribus tour`: the tour on a stack that is up already.

import { Failure } from '@cribus/contracts/failure.ts';
import { VersionRequest } from '@cribus/contracts/gen/cri/v1/api.ts';
import type { Invocation } from '../arguments.ts';
import { requireRoot } from '../require-root.ts';
import { currentConfig } from '../stack/generated.ts';
import { openStack } from '../stack/open-stack.ts';
import { withStackClient } from '../stack/stack-client.ts';
import { runTour } from '../tour/run-tour.ts';

export async function runTourCommand(invocation: Invocation): Promise<number> {
  requireRoot('tour', 'the CRI socket is for root alone');
  const stack = await openStack(invocation);
  // Raises unavailable, with how to start it, where nobody serves.
  await withStackClient(invocation, (client) =>
    client.call('version', VersionRequest.fromPartial({})),
  );
  const ending = new AbortController();
  for (const name of ['SIGINT', 'SIGTERM'] as const) {
    process.once(name, () => ending.abort(new Failure('cancelled', name)));
  }
  const config = await currentConfig(stack);
  const { image } = invocation.values;
  const print = (line: string) => console.log(line);
  try {
    await runTour({ stack, config, image, print, signal: ending.signal });
    return 0;
  } catch (error) {
    if (!ending.signal.aborted) throw error;
    print('Interrupted; what the tour had made is removed.');
    return 130;
  }
}
