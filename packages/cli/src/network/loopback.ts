// The loopback of the network namespace we were started in: a fresh one has it down, and then nobody
// can connect to the servers that listen on it.

import { networkInterfaces } from 'node:os';
import { Failure } from '@cribus/contracts/failure.ts';
import { run } from '@cribus/host/spawn.ts';

/** Brings `lo` up where it is down, and says so. Raises unavailable when that fails. */
export async function bringLoopbackUp(options: {
  readonly say: (line: string) => void;
  readonly signal: AbortSignal;
}): Promise<void> {
  // Interfaces that are down aren't listed.
  if (networkInterfaces()['lo'] !== undefined) return;
  const { signal } = options;
  const result = await run({ command: 'ip', args: ['link', 'set', 'lo', 'up'], signal });
  if (result.exitCode !== 0) {
    throw new Failure('unavailable', result.stderr.toString('utf8').trim(), {
      stage: 'bringing the loopback interface up',
    });
  }
  options.say('The loopback interface of this network namespace was down: brought it up.');
}
